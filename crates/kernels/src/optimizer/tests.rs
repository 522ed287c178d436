//! Every step against the f64 reference, over several steps, on sizes within and beyond one chunk.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::reference;
use super::*;
use crate::check::Array;

const STEPS: usize = 6;

/// Runs `ours` and `truth` side by side from one start and one sequence of gradients.
fn check(
    dtype: DType,
    tolerance: f64,
    ours: impl Fn(&Var, &Tensor, &Var) -> Result<()>,
    truth: impl Fn(&mut [f64], &[f64], &mut [f64]),
) {
    let cpu = &Device::Cpu;
    for n in [1, 37, 40_000] {
        let mut w = Array::random(&[n], 3).data;
        let mut b = vec![0.0; n];
        let var = Var::from_tensor(&Tensor::new(w.as_slice(), cpu).unwrap().to_dtype(dtype).unwrap()).unwrap();
        let buffer = Var::zeros(n, dtype, cpu).unwrap();
        for step in 0..STEPS {
            let g = Array::random(&[n], 100 + step as u64).data;
            ours(&var, &Tensor::new(g.as_slice(), cpu).unwrap().to_dtype(dtype).unwrap(), &buffer).unwrap();
            truth(&mut w, &g, &mut b);
        }
        for (name, ours, truth) in [("weight", &var, &w), ("buffer", &buffer, &b)] {
            for (i, (a, t)) in Array::of(ours).unwrap().data.iter().zip(truth).enumerate() {
                assert!((a - t).abs() <= tolerance, "{name} {i} of {n}: {a}, expected {t}");
            }
        }
    }
}

fn check_sgd(step: SgdStep) {
    for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::F64, 1e-13)] {
        check(dtype, tolerance, |w, g, b| sgd_step(w, g, Some(b), &step), |w, g, b| reference::sgd(w, g, b, &step));
    }
}

fn check_lars(step: LarsStep) {
    for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::F64, 1e-13)] {
        check(dtype, tolerance, |w, g, b| lars_step(w, g, Some(b), &step), |w, g, b| reference::lars(w, g, b, &step));
    }
}

const LARS: LarsStep = LarsStep {
    lr: 0.3,
    momentum: 0.9,
    weight_decay: 0.05,
    eta: Some(0.02),
    ratio: Ratio::Joint,
    clip: false,
    lr_in_momentum: false,
};

#[test]
fn sgd_equals_the_reference() {
    check_sgd(SgdStep { lr: 0.1, momentum: 0.0, weight_decay: 0.0, nesterov: false });
    check_sgd(SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 0.01, nesterov: false });
    check_sgd(SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 0.01, nesterov: true });
}

#[test]
fn lars_equals_the_reference_in_every_variant() {
    check_lars(LARS);
    check_lars(LarsStep { ratio: Ratio::Sum, ..LARS });
    check_lars(LarsStep { clip: true, ..LARS });
    check_lars(LarsStep { clip: true, ratio: Ratio::Sum, lr: 1e-3, ..LARS });
    check_lars(LarsStep { lr_in_momentum: true, ..LARS });
    check_lars(LarsStep { eta: None, weight_decay: 0.0, ..LARS });
    check_lars(LarsStep { eta: None, lr_in_momentum: true, ..LARS });
}

/// A zero weight moves by the plain gradient; a zero gradient leaves the decay to `Joint` and nothing to `Sum`.
#[test]
fn a_zero_norm_makes_the_ratio_one() -> Result<()> {
    let cpu = &Device::Cpu;
    let run = |w: f32, g: f32, ratio| -> Result<f32> {
        let var = Var::new(&[w], cpu)?;
        lars_step(&var, &Tensor::new(&[g], cpu)?, None, &LarsStep { momentum: 0.0, ratio, ..LARS })?;
        Ok(var.to_vec1::<f32>()?[0])
    };
    for ratio in [Ratio::Joint, Ratio::Sum] {
        assert_eq!(run(0.0, 2.0, ratio)?, -0.6);
    }
    // |g + wd w| is not zero, so the decay is adapted: 2 - 0.3 * 0.02 * 2 / 0.1 * 0.1.
    assert!((run(2.0, 0.0, Ratio::Joint)? - 1.988).abs() < 1e-6);
    assert_eq!(run(2.0, 0.0, Ratio::Sum)?, 2.0);
    Ok(())
}

/// The first step of a linear warm-up has a rate of 0: the weights stay, the buffer fills.
#[test]
fn a_rate_of_zero_moves_nothing_even_when_clipped() -> Result<()> {
    let w = Var::new(&[1f64, -2.0], &Device::Cpu)?;
    let b = Var::zeros(2, DType::F64, &Device::Cpu)?;
    let g = Tensor::new(&[0.5f64, 0.25], &Device::Cpu)?;
    lars_step(&w, &g, Some(&b), &LarsStep { lr: 0.0, clip: true, weight_decay: 0.0, ..LARS })?;
    assert_eq!(w.to_vec1::<f64>()?, [1.0, -2.0]);
    assert_eq!(b.to_vec1::<f64>()?, [0.5, 0.25]);
    Ok(())
}

#[test]
fn ema_moves_by_its_share_and_reads_any_layout() -> Result<()> {
    let cpu = &Device::Cpu;
    let target = Var::new(&[[1f32, 2.0, 3.0], [4.0, 5.0, 6.0]], cpu)?;
    let online = Tensor::new(&[[5f32, 8.0], [6.0, 9.0], [7.0, 10.0]], cpu)?.t()?;
    ema_step(&target, &online, 0.75)?;
    assert_eq!(target.to_vec2::<f32>()?, [[2.0, 3.0, 4.0], [5.0, 6.0, 7.0]]);
    ema_step(&target, &online, 1.0)?;
    assert_eq!(target.to_vec2::<f32>()?, [[2.0, 3.0, 4.0], [5.0, 6.0, 7.0]]);
    ema_step(&target, &online, 0.0)?;
    assert_eq!(target.to_vec2::<f32>()?, online.to_vec2::<f32>()?);
    Ok(())
}

#[test]
fn threads_do_not_change_a_bit() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let w = Var::from_tensor(&Array::random(&[100_003], 1).tensor().unwrap()).unwrap();
            let b = Var::zeros(100_003, DType::F32, &Device::Cpu).unwrap();
            lars_step(&w, &Array::random(&[100_003], 2).tensor().unwrap(), Some(&b), &LARS).unwrap();
            w.to_vec1::<f32>().unwrap()
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn non_finite_values_are_found() -> Result<()> {
    for n in [3, 50_000] {
        let mut v = vec![1e38f32; n];
        assert!(is_finite(&Tensor::new(v.as_slice(), &Device::Cpu)?)?);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            v[n - 1] = bad;
            assert!(!is_finite(&Tensor::new(v.as_slice(), &Device::Cpu)?)?);
            assert!(is_finite(&Tensor::new(v.as_slice(), &Device::Cpu)?.narrow(0, 0, n - 1)?)?);
        }
    }
    Ok(())
}

#[test]
fn bad_arguments_are_named() -> Result<()> {
    let cpu = &Device::Cpu;
    let w = Var::zeros((2, 3), DType::F32, cpu)?;
    let step = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 0.0, nesterov: false };
    let error = |r: Result<()>| r.unwrap_err().to_string();
    let g = Tensor::zeros((2, 3), DType::F32, cpu)?;
    let other = Tensor::zeros((3, 2), DType::F32, cpu)?;
    assert!(error(sgd_step(&w, &other, None, &step)).contains("gradient is [3, 2] F32, the variable [2, 3] F32"));
    assert!(error(sgd_step(&w, &g, None, &step)).contains("momentum of 0.9 needs a buffer"));
    assert!(error(sgd_step(&w, &g, Some(&w), &step)).contains("own momentum buffer"));
    assert!(error(ema_step(&w, &g, 1.5)).contains("tau must be in [0, 1]"));
    assert!(error(ema_step(&w, &g.to_dtype(DType::F64)?, 0.5)).contains("F64"));
    Ok(())
}
