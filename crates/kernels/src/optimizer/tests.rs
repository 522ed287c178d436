//! Every step against the f64 reference, over several steps, on sizes within and beyond one chunk.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use candle_core::{DType, Result, Tensor, Var};

use super::reference;
use super::*;
use crate::check::{Array, device};

const STEPS: usize = 6;

/// A bad step on a GPU stops those of all tests there: the tests of that are alone.
static DEVICE: RwLock<()> = RwLock::new(());

pub(crate) fn shared() -> RwLockReadGuard<'static, ()> {
    DEVICE.read().unwrap_or_else(PoisonError::into_inner)
}

/// What a step said, and on a GPU what it found out.
fn found(said: Result<Option<usize>>) -> Result<Option<String>> {
    let device = &device()?;
    let found = match said? {
        Some(index) => Some(["first", "second", "third"][index].to_owned()),
        None => fault(device)?,
    };
    forget_fault(device)?;
    Ok(found)
}

fn item<'a, S>(weight: &'a Var, gradient: &'a Tensor, buffer: Option<&'a Var>, step: &S) -> Item<'a, S>
where
    S: Copy,
{
    Item { name: "w", weight, gradient, buffer, step: *step }
}

fn sgd_step(w: &Var, g: &Tensor, buffer: Option<&Var>, step: &SgdStep) -> Result<()> {
    assert_eq!(sgd_steps(&[item(w, g, buffer, step)])?, None);
    Ok(())
}

fn lars_step(w: &Var, g: &Tensor, buffer: Option<&Var>, step: &LarsStep) -> Result<()> {
    assert_eq!(lars_steps(&[item(w, g, buffer, step)])?, None);
    Ok(())
}

fn ema_step(target: &Var, online: &Tensor, tau: f64) -> Result<()> {
    ema_steps(&[("w", target, online)], tau)
}

/// Runs `ours` and `truth` side by side from one start and one sequence of gradients.
fn check(
    dtype: DType,
    tolerance: f64,
    ours: impl Fn(&Var, &Tensor, &Var) -> Result<()>,
    truth: impl Fn(&mut [f64], &[f64], &mut [f64]),
) {
    let _shared = shared();
    let device = &device().unwrap();
    for n in [1, 37, 40_000] {
        let mut w = Array::random(&[n], 3).data;
        let mut b = vec![0.0; n];
        let var = Var::from_tensor(&Tensor::new(w.as_slice(), device).unwrap().to_dtype(dtype).unwrap()).unwrap();
        let buffer = Var::zeros(n, dtype, device).unwrap();
        for step in 0..STEPS {
            let g = Array::random(&[n], 100 + step as u64).data;
            ours(&var, &Tensor::new(g.as_slice(), device).unwrap().to_dtype(dtype).unwrap(), &buffer).unwrap();
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
    let _shared = shared();
    let device = &device()?;
    let run = |w: f32, g: f32, ratio| -> Result<f32> {
        let var = Var::new(&[w], device)?;
        lars_step(&var, &Tensor::new(&[g], device)?, None, &LarsStep { momentum: 0.0, ratio, ..LARS })?;
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
    let _shared = shared();
    let device = &device()?;
    let w = Var::new(&[1f64, -2.0], device)?;
    let b = Var::zeros(2, DType::F64, device)?;
    let g = Tensor::new(&[0.5f64, 0.25], device)?;
    lars_step(&w, &g, Some(&b), &LarsStep { lr: 0.0, clip: true, weight_decay: 0.0, ..LARS })?;
    assert_eq!(w.to_vec1::<f64>()?, [1.0, -2.0]);
    assert_eq!(b.to_vec1::<f64>()?, [0.5, 0.25]);
    Ok(())
}

#[test]
fn ema_moves_by_its_share_and_reads_any_layout() -> Result<()> {
    let _shared = shared();
    let device = &device()?;
    let target = Var::new(&[[1f32, 2.0, 3.0], [4.0, 5.0, 6.0]], device)?;
    let online = Tensor::new(&[[5f32, 8.0], [6.0, 9.0], [7.0, 10.0]], device)?.t()?;
    ema_step(&target, &online, 0.75)?;
    assert_eq!(target.to_vec2::<f32>()?, [[2.0, 3.0, 4.0], [5.0, 6.0, 7.0]]);
    ema_step(&target, &online, 1.0)?;
    assert_eq!(target.to_vec2::<f32>()?, [[2.0, 3.0, 4.0], [5.0, 6.0, 7.0]]);
    ema_step(&target, &online, 0.0)?;
    assert_eq!(target.to_vec2::<f32>()?, online.to_vec2::<f32>()?);
    Ok(())
}

/// Tensors of many sizes in one call, against the same in calls of their own: order and neighbors change no bit.
#[test]
fn threads_and_neighbors_do_not_change_a_bit() {
    let _shared = shared();
    let sizes = [3usize, 100_003, 1, 16_384, 700, 16_385, 5, 40_000];
    let run = |threads, together: bool| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let random = |n: usize, seed| Array::random(&[n], seed).tensor().unwrap();
            let weights: Vec<Var> = sizes.iter().map(|&n| Var::from_tensor(&random(n, 1)).unwrap()).collect();
            let buffers: Vec<Var> = sizes.iter().map(|&n| Var::from_tensor(&random(n, 3)).unwrap()).collect();
            let gradients: Vec<Tensor> = sizes.iter().map(|&n| random(n, 2)).collect();
            // Some adapt, some do not.
            let items: Vec<_> = (0..sizes.len())
                .map(|i| {
                    let step = if i % 3 == 2 { LarsStep { eta: None, weight_decay: 0.0, ..LARS } } else { LARS };
                    item(&weights[i], &gradients[i], Some(&buffers[i]), &step)
                })
                .collect();
            if together {
                assert_eq!(lars_steps(&items).unwrap(), None);
            } else {
                items.iter().for_each(|&one| assert_eq!(lars_steps(&[one]).unwrap(), None));
            }
            let online: Vec<_> = weights.iter().zip(&gradients).map(|(w, g)| ("w", w, g)).collect();
            ema_steps(&online, 0.9).unwrap();
            weights.iter().map(|w| w.to_vec1::<f32>().unwrap()).collect::<Vec<_>>()
        })
    };
    let one = run(1, true);
    assert_eq!(one, run(3, true));
    assert_eq!(one, run(2, false));
}

#[test]
fn non_finite_values_are_found() -> Result<()> {
    let device = &device()?;
    for n in [3, 50_000] {
        let mut v = vec![1e38f32; n];
        let fine = Tensor::new(v.as_slice(), device)?;
        assert_eq!(first_non_finite(&[&fine, &fine])?, None);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            v[n - 1] = bad;
            let bad = Tensor::new(v.as_slice(), device)?;
            assert_eq!(first_non_finite(&[&fine, &bad, &bad])?, Some(1));
            assert_eq!(first_non_finite(&[&fine, &bad.to_dtype(DType::F64)?, &bad])?, Some(1));
            assert_eq!(first_non_finite(&[&fine, &bad.narrow(0, 0, n - 1)?])?, None);
        }
    }
    Ok(())
}

/// A gradient that is not finite is told by its name and stops the step before anything is changed; huge ones are fine.
#[test]
fn a_step_with_a_gradient_that_is_not_finite_changes_nothing() -> Result<()> {
    let _alone = DEVICE.write().unwrap_or_else(PoisonError::into_inner);
    let device = &device()?;
    let names = ["first", "second", "third"];
    for dtype in [DType::F32, DType::F64] {
        let w = [(); 3].map(|()| Var::from_tensor(&Tensor::ones(20_000, dtype, device).unwrap()).unwrap());
        let b = [(); 3].map(|()| Var::zeros(20_000, dtype, device).unwrap());
        let values = || w.iter().chain(&b).map(|v| Array::of(v)).collect::<Result<Vec<_>>>();
        let g = |last: f64| -> Result<Tensor> {
            let mut v = vec![1f64; 20_000];
            v[19_999] = last;
            Tensor::new(v, device)?.to_dtype(dtype)
        };
        for (last, expected) in [(f64::NAN, Some("second")), (f64::NEG_INFINITY, Some("second")), (3e38, None)] {
            let g = [g(1.0)?, g(last)?, g(last)?];
            for lars in [[Some(0.01); 3], [Some(0.01), None, None]] {
                let before = values()?;
                let one = |i: usize| {
                    let step = LarsStep { eta: lars[i], ..LARS };
                    Item { name: names[i], weight: &w[i], gradient: &g[i], buffer: Some(&b[i]), step }
                };
                assert_eq!(found(lars_steps(&[one(0), one(1), one(2)]))?.as_deref(), expected);
                assert_eq!(before == values()?, expected.is_some());
            }
            let step = SgdStep { lr: 1e-3, momentum: 0.9, weight_decay: 0.0, nesterov: false };
            let items = [0, 1, 2].map(|i| Item { name: names[i], ..item(&w[i], &g[i], Some(&b[i]), &step) });
            let before = values()?;
            assert_eq!(found(sgd_steps(&items))?.as_deref(), expected);
            assert_eq!(before == values()?, expected.is_some());
        }
    }
    // The square of this overflows an f64 sum.
    let (w, g) = (Var::ones(2, DType::F64, device)?, Tensor::new(&[1e200f64, 1.0], device)?);
    assert_eq!(found(lars_steps(&[item(&w, &g, None, &LarsStep { momentum: 0.0, ..LARS })]))?, None);
    Ok(())
}

/// On a GPU the first bad step is told until it is forgotten, whatever comes after it, and nothing moves meanwhile.
#[test]
fn a_fault_stays_until_it_is_forgotten() -> Result<()> {
    let _alone = DEVICE.write().unwrap_or_else(PoisonError::into_inner);
    let device = &device()?;
    assert_eq!(fault(device)?, None);
    if device.is_cpu() {
        return Ok(());
    }
    let step = SgdStep { lr: 0.5, momentum: 0.0, weight_decay: 0.0, nesterov: false };
    let w = [(); 2].map(|()| Var::ones(5, DType::F32, device).unwrap());
    let fine = Tensor::ones(5, DType::F32, device)?;
    let bad = (&fine / 0.0)?;
    let one = |i: usize, gradient| Item { name: ["a", "b"][i], ..item(&w[i], gradient, None, &step) };
    // A sum of a step's bad gradients elsewhere does not hide the first.
    assert_eq!(sgd_steps(&[one(0, &fine), one(1, &bad)])?, None);
    assert_eq!(sgd_steps(&[one(0, &bad), one(1, &fine)])?, None);
    assert_eq!(sgd_steps(&[one(0, &fine), one(1, &fine)])?, None);
    ema_steps(&[("a", &w[0], &(&fine * 9.0)?)], 0.5)?;
    for _ in 0..2 {
        assert_eq!(fault(device)?.as_deref(), Some("b"));
    }
    assert_eq!(w[0].to_vec1::<f32>()?, [1.0; 5]);
    forget_fault(device)?;
    assert_eq!(sgd_steps(&[one(0, &fine), one(1, &fine)])?, None);
    assert_eq!(fault(device)?, None);
    assert_eq!(w[0].to_vec1::<f32>()?, [0.5; 5]);
    Ok(())
}

/// More tensors than fit the arguments of a launch, and more different settings; some begin where 16 bytes do not.
#[test]
fn many_tensors_with_many_settings_equal_the_reference() -> Result<()> {
    let _shared = shared();
    let device = &device()?;
    let count = 1000;
    let all = Array::random(&[2 * count + 2], 8);
    let gradients = Tensor::new(all.data.as_slice(), device)?.to_dtype(DType::F32)?;
    let weights: Vec<Var> = (0..count).map(|i| Var::ones(1 + i % 3, DType::F32, device)).collect::<Result<_>>()?;
    let gradients: Vec<Tensor> = (0..count).map(|i| gradients.narrow(0, 2 * i, 1 + i % 3)).collect::<Result<_>>()?;
    let step = |i: usize| {
        // The first hundred differ all; after that, long runs do not.
        let lr = if i < 100 { 0.01 * i as f64 } else { (i / 300) as f64 };
        SgdStep { lr, momentum: 0.0, weight_decay: 0.5, nesterov: false }
    };
    let items: Vec<_> = (0..count).map(|i| item(&weights[i], &gradients[i], None, &step(i))).collect();
    for _ in 0..2 {
        assert_eq!(sgd_steps(&items)?, None);
    }
    for (i, weight) in weights.iter().enumerate() {
        let (mut w, g) = (vec![1.0; 1 + i % 3], &all.data[2 * i..2 * i + 1 + i % 3]);
        for _ in 0..2 {
            reference::sgd(&mut w, g, &mut [0.0; 3], &step(i));
        }
        for (a, b) in Array::of(weight)?.data.iter().zip(&w) {
            assert!((a - b).abs() < 1e-5, "tensor {i}: {a}, expected {b}");
        }
    }
    assert_eq!(fault(device)?, None);
    Ok(())
}

#[test]
fn bad_arguments_are_named_and_change_nothing() -> Result<()> {
    let _shared = shared();
    let device = &device()?;
    let w = Var::ones((2, 3), DType::F32, device)?;
    let v = Var::ones((2, 3), DType::F32, device)?;
    let step = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 0.0, nesterov: false };
    let plain = SgdStep { momentum: 0.0, ..step };
    let error = |r: Result<()>| r.unwrap_err().to_string();
    let g = Tensor::ones((2, 3), DType::F32, device)?;
    let other = Tensor::zeros((3, 2), DType::F32, device)?;
    assert!(
        error(sgd_step(&w, &other, None, &step)).contains("w: sgd: the gradient is [3, 2] F32, the variable [2, 3]")
    );
    assert!(error(sgd_step(&w, &g, None, &step)).contains("momentum of 0.9 needs a buffer"));
    assert!(error(sgd_step(&w, &g, Some(&w), &step)).contains("shares its memory"));
    assert!(error(sgd_step(&w, &w.as_detached_tensor(), None, &plain)).contains("shares its memory"));
    let twice = sgd_steps(&[item(&v, &g, None, &plain), item(&w, &g, None, &plain), item(&w, &g, None, &plain)]);
    assert!(twice.unwrap_err().to_string().contains("shares its memory"));
    assert!(error(ema_step(&w, &g, 1.5)).contains("tau must be in [0, 1]"));
    assert!(error(ema_step(&w, &g.to_dtype(DType::F64)?, 0.5)).contains("F64"));
    for var in [&v, &w] {
        assert_eq!(var.to_vec2::<f32>()?, [[1.0; 3]; 2]);
    }
    Ok(())
}
