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

    #[test]
    fn names_and_shapes_must_be_the_same() {
        let y = tensors("y", &[1.0]);
        assert!(message(&y, &tensors("z", &[1.0])).contains("gave z"));
        assert!(message(&y, &Tensors::new()).contains("did not give y"));
        assert!(message(&y, &tensors("y", &[1.0, 1.0])).contains("[1], the peer's [2]"));
    }
}
