//! Are two sets of tensors the same, as far as arithmetic in another order allows?

use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::case::{Tensors, Tolerance};

/// Fails with a sentence unless `ours` and `theirs` hold the same names, shapes and, within `tolerance`, values.
pub(crate) fn equal(ours: &Tensors, theirs: &Tensors, tolerance: Tolerance) -> Result<()> {
    if let Some(name) = theirs.keys().find(|name| !ours.contains_key(*name)) {
        bail!("the peer gave {name}, which ours did not")
    }
    for (name, a) in ours {
        let Some(b) = theirs.get(name) else { bail!("the peer did not give {name}") };
        if a.dims() != b.dims() {
            bail!("{name} has the shape {:?}, the peer's {:?}", a.dims(), b.dims())
        }
        let (a, b) = (values(a)?, values(b)?);
        if a.par_iter().chain(&b).any(|v| !v.is_finite()) {
            bail!("{name} holds a value that is not finite")
        }
        let difference: Vec<f32> = a.par_iter().zip(&b).map(|(a, b)| a - b).collect();
        for (what, of, allowed) in [
            ("by norm", norm as fn(&[f32]) -> f64, tolerance.norm),
            ("by the largest value", largest as fn(&[f32]) -> f64, tolerance.largest),
        ] {
            // A tensor of zeros must be met exactly.
            let (apart, size) = (of(&difference), of(&b));
            if apart > allowed * size {
                // A few numbers say more than their distance.
                let both = if a.len() <= 4 { format!(" (ours {a:?}, the peer's {b:?})") } else { String::new() };
                bail!("{name} differs from the peer's by {:.2e} {what}, allowed is {allowed:.0e}{both}", apart / size)
            }
        }
    }
    Ok(())
}

/// The least dB of any tensor of pictures, which are u8 on both sides; 100 where they are equal, or nearly.
///
/// # Errors
/// As [`equal`], where they are further apart than `least`.
pub(crate) fn pictures(ours: &Tensors, theirs: &Tensors, least: f64) -> Result<f64> {
    let far = Tolerance { norm: f64::INFINITY, largest: f64::INFINITY };
    equal(ours, theirs, far)?;
    let mut found = MOST_DECIBELS;
    for (name, a) in ours {
        let (a, b) = (bytes(name, a)?, bytes(name, &theirs[name])?);
        let sum: f64 = a.par_iter().zip(&b).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
        let mean = sum / a.len().max(1) as f64;
        found = found.min(10.0 * (255.0 * 255.0 / mean).log10());
        if found < least {
            bail!("{name} is {found:.1} dB from the peer's, at least {least:.0} are asked for")
        }
    }
    Ok(found)
}

/// Where pictures are as good as equal.
const MOST_DECIBELS: f64 = 100.0;

fn bytes(name: &str, t: &Tensor) -> Result<Vec<u8>> {
    if t.dtype() != DType::U8 {
        bail!("{name} holds {:?}, pictures hold u8", t.dtype())
    }
    Ok(t.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?)
}

fn values(t: &Tensor) -> Result<Vec<f32>> {
    Ok(t.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

fn norm(v: &[f32]) -> f64 {
    v.par_iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

fn largest(v: &[f32]) -> f64 {
    f64::from(v.par_iter().map(|x| x.abs()).reduce(|| 0.0, f32::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: Tolerance = Tolerance { norm: 1e-2, largest: 2e-2 };

    fn tensors(name: &str, values: &[f32]) -> Tensors {
        [(name.to_string(), Tensor::new(values, &Device::Cpu).unwrap())].into()
    }

    fn message(ours: &Tensors, theirs: &Tensors) -> String {
        equal(ours, theirs, TOLERANCE).unwrap_err().to_string()
    }

    #[test]
    fn small_differences_pass_and_large_ones_are_named() {
        let peer = tensors("y", &[100.0, 1.0, 0.0]);
        equal(&tensors("y", &[100.5, 1.0, 0.1]), &peer, TOLERANCE).unwrap();
        let text = message(&tensors("y", &[101.5, 1.0, 0.0]), &peer);
        let values = "(ours [101.5, 1.0, 0.0], the peer's [100.0, 1.0, 0.0])";
        assert_eq!(text, format!("y differs from the peer's by 1.50e-2 by norm, allowed is 1e-2 {values}"));
        // Many values: small by norm, but one is far off.
        let many = vec![1.0; 10_000];
        let mut other = many.clone();
        other[7] = 1.5;
        let text = message(&tensors("y", &other), &tensors("y", &many));
        assert!(text.contains("by the largest value"), "{text}");
    }

    #[test]
    fn zeros_must_be_met_and_nan_equals_nothing() {
        let zeros = tensors("y", &[0.0, 0.0]);
        equal(&zeros, &zeros, TOLERANCE).unwrap();
        assert!(message(&tensors("y", &[1e-30, 0.0]), &zeros).contains("differs"));
        let nan = tensors("y", &[f32::NAN, 0.0]);
        assert!(message(&nan, &nan).contains("not finite"));
    }

    /// One of 4 values is 10 off: 10 log10(255^2 / 25).
    #[test]
    fn pictures_are_compared_in_decibels() {
        let of = |values: &[u8]| -> Tensors { [("y".into(), Tensor::new(values, &Device::Cpu).unwrap())].into() };
        let ours = of(&[0, 100, 200, 255]);
        assert_eq!(pictures(&ours, &ours, 90.0).unwrap(), 100.0);
        let found = pictures(&ours, &of(&[0, 110, 200, 255]), 34.0).unwrap();
        assert!((found - 34.151).abs() < 1e-3, "{found}");
        let text = pictures(&ours, &of(&[0, 90, 200, 255]), 35.0).unwrap_err().to_string();
        assert_eq!(text, "y is 34.2 dB from the peer's, at least 35 are asked for");
        assert!(pictures(&ours, &of(&[0, 100]), 0.0).is_err());
        assert!(pictures(&tensors("y", &[0.5]), &tensors("y", &[0.5]), 0.0).unwrap_err().to_string().contains("F32"));
    }

    #[test]
    fn names_and_shapes_must_be_the_same() {
        let y = tensors("y", &[1.0]);
        assert!(message(&y, &tensors("z", &[1.0])).contains("gave z"));
        assert!(message(&y, &Tensors::new()).contains("did not give y"));
        assert!(message(&y, &tensors("y", &[1.0, 1.0])).contains("[1], the peer's [2]"));
    }
}
