//! Both forms against the reference, at and around D = N, and what must not matter.

use super::*;
use crate::check::{Array, Tolerance, check_op, device};
use candle_core::{Device, Var};

const EPS: f64 = 1e-5;

fn check(n: usize, d: usize, lambda: f64) {
    let inputs = [Array::random(&[n, d], 21), Array::random(&[n, d], 22).map(|v| 2.0 * v + 0.5)];
    let op = |z: &[Tensor]| Ok(barlow_twins(&z[0], &z[1], lambda, EPS)?.total);
    let reference = |z: &[Array]| {
        let (invariance, redundancy) = reference::barlow_twins(&z[0], &z[1], EPS);
        Array::new(&[], vec![invariance + lambda * redundancy])
    };
    check_op(&op, &reference, &inputs, Tolerance::default()).unwrap();
}

#[test]
fn the_direct_form_equals_the_reference() {
    check(5, 3, 0.0051);
    check(9, 7, 0.5);
    check(17, 2, 1.0);
}

#[test]
fn the_dual_form_equals_the_reference() {
    check(3, 6, 0.0051);
    check(4, 9, 0.5);
    check(5, 17, 1.0);
}

#[test]
fn the_form_without_a_graph_gives_the_same_bits() -> Result<()> {
    for (n, d) in [(9, 5), (5, 9)] {
        let z = [1, 2].map(|seed| Var::from_tensor(&Array::random(&[n, d], seed).tensor().unwrap()).unwrap());
        let parts = barlow_twins(&z[0], &z[1], 0.1, EPS)?;
        let grads = parts.total.backward()?;
        let (plain, gradients) = loss_and_gradients(&z[0], &z[1], 0.1, EPS)?;
        assert_eq!(parts.total.to_scalar::<f32>()?, plain.total.to_scalar::<f32>()?);
        assert_eq!(parts.redundancy.to_scalar::<f32>()?, plain.redundancy.to_scalar::<f32>()?);
        for (z, gradient) in z.iter().zip(&gradients) {
            assert_eq!(grads.get(z).unwrap().to_vec2::<f32>()?, gradient.to_vec2::<f32>()?);
        }
    }
    Ok(())
}

/// Where the form changes, and one column.
#[test]
fn both_sides_of_the_change_equal_the_reference() {
    for d in [7, 8, 9] {
        check(8, d, 0.3);
    }
    check(2, 1, 0.3);
    check(2, 2, 0.3);
}

/// Several blocks, tiles and bands, cut off in the middle; the derivative along the gradient is its squared length.
#[test]
fn values_and_slopes_equal_the_reference_over_many_blocks() -> Result<()> {
    for (n, d) in [(70, 69), (70, 70), (70, 71), (301, 67), (150, 520), (40, 601)] {
        let (a, b) = (Array::random(&[n, d], 1), Array::random(&[n, d], 2));
        let (va, vb) = (Var::from_tensor(&a.tensor()?)?, Var::from_tensor(&b.tensor()?)?);
        let parts = barlow_twins(&va, &vb, 0.1, EPS)?;
        let (invariance, redundancy) = reference::barlow_twins(&a, &b, EPS);
        let close = |t: &Tensor, truth: f64| -> Result<()> {
            let v = f64::from(t.to_scalar::<f32>()?);
            assert!((v / truth - 1.0).abs() < 2e-6, "[{n}, {d}]: {v} {truth}");
            Ok(())
        };
        close(&parts.invariance, invariance)?;
        close(&parts.redundancy, redundancy)?;
        close(&parts.total, invariance + 0.1 * redundancy)?;
        let grads = parts.total.backward()?;
        let (ga, gb) = (Array::of(grads.get(&va).unwrap())?, Array::of(grads.get(&vb).unwrap())?);
        let squares: f64 = ga.data.iter().chain(&gb.data).map(|v| v * v).sum();
        let along = |h: f64| {
            let walk = |x: &Array, g: &Array| {
                Array::new(&x.shape, x.data.iter().zip(&g.data).map(|(x, g)| x + h * g).collect())
            };
            let (invariance, redundancy) = reference::barlow_twins(&walk(&a, &ga), &walk(&b, &gb), EPS);
            invariance + 0.1 * redundancy
        };
        let h = 1e-4 / squares.sqrt();
        let slope = (along(h) - along(-h)) / (2.0 * h);
        assert!((slope / squares - 1.0).abs() < 1e-5, "[{n}, {d}]: {slope} {squares}");
    }
    Ok(())
}

/// One matrix through both forms, whatever its shape: the same terms and gradients.
#[test]
fn the_forms_agree() {
    for (n, d) in [(33, 32), (33, 33), (33, 34), (200, 150), (150, 200)] {
        let z = [3, 4].map(|seed| Array::random(&[n, d], seed).data.iter().map(|&v| v as f32).collect::<Vec<_>>());
        let (dual, all, moments) = super::dual::forward([&z[0], &z[1]], d, EPS);
        let view = |i: usize| super::cpu::View { z: &z[i], d, moments: &moments[i] };
        let (direct, off) = super::direct::forward(&view(0), &view(1));
        let on: f64 = dual.diagonal.iter().map(|c| c * c).sum();
        assert!(((all - on) / off - 1.0).abs() < 1e-6, "[{n}, {d}]: {} {off}", all - on);
        let gradients = [
            super::dual::backward(&dual, &view(0), &view(1), 0.2, 1.5),
            super::direct::backward(&direct, &view(0), &view(1), 0.2, 1.5),
        ];
        let largest = gradients[0].iter().flatten().fold(0f32, |m, v| m.max(v.abs()));
        for (a, b) in gradients[0].iter().flatten().zip(gradients[1].iter().flatten()) {
            assert!((a - b).abs() < 1e-5 * largest, "[{n}, {d}]: {a} {b}");
        }
    }
}

/// The sum that cancels most: columns that are uncorrelated up to a little noise, at D = N - 1 and N. What is left of
/// D beside it is right to 1e-6 of D. Columns of a Hadamard matrix but the first are such.
#[test]
fn decorrelated_views_leave_their_small_redundancy() -> Result<()> {
    let n = 64;
    for d in [62, 63] {
        let hadamard =
            |row: usize, column: usize| if (row & column).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
        let noise = Array::random(&[n, d], 5);
        let z: Vec<f64> = (0..n * d).map(|i| hadamard(i / d, i % d + 1) + 0.001 * noise.data[i]).collect();
        let z = Array::new(&[n, d], z.iter().map(|&v| f64::from(v as f32)).collect());
        let t = z.tensor()?;
        // Of the same columns twice the N x N form sees D >= N.
        for wide in [false, true] {
            let (t, z) = if wide {
                let twice: Vec<f64> = z.data.chunks(d).flat_map(|row| [row, &row[..n - d]].concat()).collect();
                (Tensor::cat(&[&t, &t.narrow(1, 0, n - d)?], 1)?, Array::new(&[n, n], twice))
            } else {
                (t.clone(), z.clone())
            };
            let parts = barlow_twins(&t, &t, 1.0, EPS)?;
            let (_, redundancy) = reference::barlow_twins(&z, &z, EPS);
            let got = f64::from(parts.redundancy.to_scalar::<f32>()?);
            assert!((got - redundancy).abs() < 1e-6 * n as f64, "{got} {redundancy}");
        }
    }
    Ok(())
}

/// Columns with a mean of 10,000 and a deviation of 1: standardized in f64, their loss is that of the columns without it.
#[test]
fn a_large_offset_does_not_matter() -> Result<()> {
    for (n, d) in [(40, 12), (12, 40)] {
        // Multiples of 1/512 stay exact after the shift.
        let z = [1, 2].map(|seed| Array::random(&[n, d], seed).map(|v| (v * 512.0).round() / 512.0));
        let value = |shift: f64| -> Result<f32> {
            let [a, b] = [0, 1].map(|i| z[i].map(|v| v + shift).tensor());
            barlow_twins(&a?, &b?, 0.1, EPS)?.total.to_scalar::<f32>()
        };
        let (at_zero, far) = (value(0.0)?, value(1e4)?);
        assert!((far / at_zero - 1.0).abs() < 1e-6, "{far} {at_zero}");
    }
    Ok(())
}

/// Scaling and shifting a column changes nothing (up to eps), and so does a common order of rows.
#[test]
fn columns_may_be_scaled_and_rows_permuted() -> Result<()> {
    for d in [8, 60] {
        let (a, b) = (Array::random(&[20, d], 1).tensor()?, Array::random(&[20, d], 2).tensor()?);
        let total = |a: &Tensor, b: &Tensor| barlow_twins(a, b, 0.01, 1e-9)?.total.to_scalar::<f32>();
        let before = total(&a, &b)?;
        let scaled = total(&(((&a * 7.0)? + 3.0)?), &(&b * 0.3)?)?;
        assert!((scaled / before - 1.0).abs() < 2e-5, "{scaled} {before}");
        let order = Tensor::from_vec((0..20u32).map(|i| (i * 7) % 20).collect::<Vec<_>>(), 20, &device()?)?;
        let permuted = total(&a.index_select(&order, 0)?, &b.index_select(&order, 0)?)?;
        assert!((permuted / before - 1.0).abs() < 1e-5, "{permuted} {before}");
    }
    Ok(())
}

#[test]
fn a_constant_column_is_a_redundancy_of_zero_and_a_nan_is_not_hidden() -> Result<()> {
    let a = Tensor::new(&[[1f32, 5.0], [2.0, 5.0], [4.0, 5.0]], &device()?)?;
    let parts = barlow_twins(&a, &a, 1.0, EPS)?;
    assert_eq!(parts.redundancy.to_scalar::<f32>()?, 0.0);
    assert!((parts.invariance.to_scalar::<f32>()? - 1.0).abs() < 1e-4);
    for d in [2, 9] {
        let bad = Tensor::full(f32::NAN, (3, d), &device()?)?;
        assert!(barlow_twins(&bad, &bad, 1.0, EPS)?.total.to_scalar::<f32>()?.is_nan());
    }
    Ok(())
}

#[test]
fn threads_do_not_change_a_bit() -> Result<()> {
    for (n, d) in [(200, 300), (200, 700), (900, 300)] {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| -> Result<_> {
                let a = Var::from_tensor(&Array::random(&[n, d], 1).tensor()?)?;
                let b = Array::random(&[n, d], 2).tensor()?;
                let loss = barlow_twins(&a, &b, 0.2, EPS)?.total;
                let grads = loss.backward()?;
                Ok((loss.to_scalar::<f32>()?, grads.get(&a).unwrap().to_vec2::<f32>()?))
            })
        };
        let one = run(1)?;
        assert_eq!(one, run(2)?);
        assert_eq!(one, run(5)?);
    }
    Ok(())
}

#[test]
fn bad_arguments_are_named() -> Result<()> {
    let z = |n, d| Tensor::zeros((n, d), DType::F32, &Device::Cpu);
    let error = |a: Tensor, b: Tensor, lambda, eps| barlow_twins(&a, &b, lambda, eps).err().unwrap().to_string();
    assert!(error(z(3, 4)?, z(2, 4)?, 1.0, EPS).contains("[3, 4] and [2, 4]"));
    assert!(error(z(1, 4)?, z(1, 4)?, 1.0, EPS).contains("at least 2 rows"));
    assert!(error(z(3, 4)?, z(3, 4)?, -1.0, EPS).contains("lambda must not be negative"));
    assert!(error(z(3, 4)?, z(3, 4)?, 1.0, 0.0).contains("eps must be positive"));
    Ok(())
}
