//! Shapes that a device divides among its blocks in different ways: whole and broken vectors, one chunk of rows and many, several tiles of
//! channels, memory that does not begin at 16 bytes. Values and gradients against closed forms in f64.

use super::*;

/// An array's values as a contiguous tensor whose memory begins `shift` values behind an aligned address.
fn shifted(x: &Array, dtype: DType, shift: usize) -> Result<Tensor> {
    let mut data = vec![0.0; shift];
    data.extend(&x.data);
    let all = Array::new(&[data.len()], data).tensor()?.to_dtype(dtype)?;
    all.narrow(0, shift, x.data.len())?.reshape(x.shape.as_slice())
}

struct Case {
    rows: usize,
    channels: usize,
    groups: usize,
    dtype: DType,
    shift: usize,
}

/// The largest distance between values, as a share of what is expected (at least of `least`).
fn distance(got: &[f64], expected: &[f64], least: f64) -> f64 {
    assert_eq!(got.len(), expected.len());
    let far = |(g, e): (&f64, &f64)| (g - e).abs() / e.abs().max(least);
    // A NaN is far.
    got.iter().zip(expected).map(far).fold(0.0, |most, v| if v <= most { most } else { v })
}

fn check(case: &Case, residual: bool, relu: bool) -> Result<()> {
    let &Case { rows, channels, groups, dtype, shift } = case;
    let shape = [groups * rows, channels];
    let rounded = |a: Array| if dtype == DType::BF16 { a.rounded() } else { a };
    let (x, dy) = (rounded(Array::random(&shape, 1).map(|v| 2.0 + v)), rounded(Array::random(&shape, 2)));
    let r = rounded(Array::random(&shape, 3));
    let (gamma, beta) = (Array::random(&[channels], 4).map(|v| 1.5 + v), Array::random(&[channels], 5));
    let options = Options { relu, groups, ..Options::default() };
    let [tx, tr, tdy] = [&x, &r, &dy].map(|a| shifted(a, dtype, shift));
    let (tx, tr, tdy, tgamma) = (tx?, tr?, tdy?, gamma.tensor()?);
    let out = forward(&tx, &tgamma, &beta.tensor()?, residual.then_some(&tr), &options)?;
    let y = Array::of(&out.y)?.data;
    let back = backward(&out.saved, tx, &out.y, tdy, &tgamma, residual)?;
    let n = x.data.len();
    let (mut ey, mut edx, mut masked) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    let (mut edgamma, mut edbeta) = (vec![0.0; channels], vec![0.0; channels]);
    for (g, part) in (0..n).collect::<Vec<_>>().chunks(rows * channels).enumerate() {
        let (mean, var) = reference::statistics(&x.data[part[0]..=part[part.len() - 1]], channels);
        assert_eq!(Array::of(&out.mean)?.data.len(), groups * channels);
        let (mut sum, mut cross) = (vec![0.0; channels], vec![0.0; channels]);
        let hat = |i: usize| (x.data[i] - mean[i % channels]) / (var[i % channels] + EPS).sqrt();
        for &i in part {
            let c = i % channels;
            let v = gamma.data[c] * hat(i) + beta.data[c] + if residual { r.data[i] } else { 0.0 };
            ey[i] = if relu { v.max(0.0) } else { v };
            // The mask is that of the values as they were stored: at the kink they may differ from the exact ones.
            masked[i] = if relu && y[i] <= 0.0 { 0.0 } else { dy.data[i] };
            sum[c] += masked[i];
            cross[c] += masked[i] * hat(i);
        }
        for &i in part {
            let c = i % channels;
            let scale = gamma.data[c] / (var[c] + EPS).sqrt();
            edx[i] = scale * (masked[i] - (sum[c] + hat(i) * cross[c]) / rows as f64);
        }
        edgamma.iter_mut().zip(&cross).for_each(|(all, v)| *all += v);
        edbeta.iter_mut().zip(&sum).for_each(|(all, v)| *all += v);
        let got = Array::of(&out.var)?.data;
        assert!(distance(&got[g * channels..(g + 1) * channels], &var, 1e-9) < 2e-6, "variance of group {g}");
    }
    let room = if dtype == DType::BF16 { 6e-3 } else { 1e-5 };
    let scale = edx.iter().fold(1.0f64, |most, v| most.max(v.abs()));
    let what = format!("{shape:?} {groups} groups {dtype:?} shift {shift} residual {residual} relu {relu}");
    let (y_off, dx_off) = (distance(&y, &ey, 1.0), distance(&Array::of(&back.dx)?.data, &edx, scale));
    assert!(y_off < room && dx_off < room, "{what}: y is off by {y_off}, dx by {dx_off}");
    for (got, expected) in [(&back.dgamma, &edgamma), (&back.dbeta, &edbeta)] {
        let off = distance(&Array::of(got)?.data, expected, (rows as f64).sqrt());
        assert!(off < 1e-5, "{what}: a parameter's gradient is off by {off}");
    }
    if let Some(d) = back.dresidual {
        assert_eq!(Array::of(&d)?.data, masked, "{what}: the residual's gradient");
    }
    Ok(())
}

#[test]
fn every_division_of_rows_and_channels_is_right() -> Result<()> {
    for (rows, channels, groups, dtype, shift) in [
        (2_500, 64, 1, DType::BF16, 0),
        (1_100, 16, 2, DType::F32, 0),
        (300, 264, 1, DType::BF16, 0),
        (70, 2_048, 1, DType::F32, 0),
        (150, 64, 3, DType::BF16, 1),
        (150, 64, 1, DType::F32, 3),
        (90, 36, 2, DType::BF16, 0),
        (3, 8, 1, DType::BF16, 8),
    ] {
        let case = Case { rows, channels, groups, dtype, shift };
        for (residual, relu) in [(false, false), (false, true), (true, true)] {
            check(&case, residual, relu)?;
        }
    }
    Ok(())
}
