//! Every op once, forward and backward, at sizes that a memory checker is done with in seconds: whole tiles, tails, values that are not
//! aligned. What the numbers must be is the other tests' affair; here they must be there.

use candle_core::{DType, Result, Tensor, Var};

use crate::augment::{BoxFilter, Color, Form, Picture, View, views};
use crate::check::Array;
use crate::optimizer::{Item, LarsStep, Ratio, SgdStep, ema_steps, fault, lars_steps, sgd_steps};

/// Runs `op` on variables of these shapes in f32 and in bf16, and back; value and gradients must be finite.
fn run(shapes: &[&[usize]], op: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<()> {
    for dtype in [DType::F32, DType::BF16] {
        let made = |(shape, seed): (&&[usize], u64)| -> Result<Var> {
            // The first is the op's activation; weights are f32.
            let dtype = if seed == 0 { dtype } else { DType::F32 };
            Var::from_tensor(&Array::random(shape, seed).tensor()?.to_dtype(dtype)?)
        };
        let vars = shapes.iter().zip(0..).map(made).collect::<Result<Vec<Var>>>()?;
        let inputs: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let y = op(&inputs)?;
        let gradients = y.to_dtype(DType::F32)?.sqr()?.flatten_all()?.sum_all()?.backward()?;
        finite(&y)?;
        for var in &vars {
            finite(gradients.get(var).unwrap())?;
        }
    }
    Ok(())
}

fn finite(x: &Tensor) -> Result<()> {
    assert!(Array::of(x)?.data.iter().all(|v| v.is_finite()));
    Ok(())
}

#[test]
fn sanitize_convolution() -> Result<()> {
    run(&[&[2, 9, 7, 8], &[24, 3, 3, 8]], |x| crate::conv2d(&x[0], &x[1], 1, 1))?;
    run(&[&[2, 9, 7, 3], &[5, 7, 7, 3]], |x| crate::conv2d(&x[0], &x[1], 2, 3))
}

#[test]
fn sanitize_linear() -> Result<()> {
    run(&[&[9, 24], &[17, 24], &[17]], |x| crate::linear(&x[0], &x[1], Some(&x[2])))
}

#[test]
fn sanitize_batch_norm() -> Result<()> {
    for channels in [8, 5] {
        run(&[&[3, 5, 7, channels], &[channels], &[channels]], |x| {
            let y = crate::batch_norm_train(&x[0], Some(&x[1]), Some(&x[2]), None, true, 1e-5)?.y;
            crate::batch_norm_train(&y, None, None, Some(&x[0]), true, 1e-5).map(|out| out.y)
        })?;
    }
    Ok(())
}

#[test]
fn sanitize_pools_and_relu() -> Result<()> {
    for channels in [8, 3] {
        run(&[&[2, 9, 7, channels]], |x| crate::global_avg_pool(&crate::max_pool2d(&crate::relu(&x[0])?, 3, 2, 1)?))?;
    }
    Ok(())
}

#[test]
fn sanitize_losses() -> Result<()> {
    let queue = Array::random(&[37, 24], 9).tensor()?;
    for shape in [[33, 24], [7, 24]] {
        let halves = |x: &[Tensor]| Ok::<_, candle_core::Error>((crate::l2_normalize(&x[0])?, x[0].affine(0.5, 0.1)?));
        run(&[&shape], |x| halves(x).and_then(|(a, b)| crate::nt_xent(&a, &b, 0.5)))?;
        run(&[&shape], |x| halves(x).and_then(|(a, b)| crate::info_nce(&a, &b, &queue.to_dtype(a.dtype())?, 0.5)))?;
        run(&[&shape], |x| halves(x).and_then(|(a, b)| Ok(crate::barlow_twins(&a, &b, 0.01, 1e-5)?.total)))?;
    }
    Ok(())
}

#[test]
fn sanitize_optimizers() -> Result<()> {
    let _shared = crate::optimizer::tests::shared();
    let var = |seed| -> Result<Var> { Var::from_tensor(&Array::random(&[1000 + seed as usize], seed).tensor()?) };
    let (weights, buffers) = ([var(1)?, var(2)?], [var(1)?, var(2)?]);
    let gradients = [var(1)?, var(2)?];
    let sgd = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 1e-4, nesterov: true };
    sgd_steps(&items(&weights, &gradients, &buffers, sgd))?;
    let (eta, ratio) = (Some(1e-3), Ratio::Joint);
    let lars = LarsStep { lr: 0.1, momentum: 0.9, weight_decay: 1e-4, eta, ratio, clip: false, lr_in_momentum: false };
    lars_steps(&items(&weights, &gradients, &buffers, lars))?;
    ema_steps(&[("w", &weights[0], gradients[0].as_tensor())], 0.9)?;
    assert_eq!(fault(weights[0].device())?, None);
    weights.iter().try_for_each(|weight| finite(weight))
}

#[test]
fn sanitize_views() -> Result<()> {
    let device = crate::check::device()?;
    if device.is_cpu() {
        return Ok(());
    }
    let bytes = Tensor::ones(7 * 9 * 3, DType::U8, &device)?;
    let jitter = [Color::Hue(0.1), Color::Brightness(1.2), Color::Contrast(0.7), Color::Saturation(0.5)].map(Some);
    let plain = View {
        picture: 0,
        corner: [1, 0],
        extent: [6, 9],
        bicubic: true,
        flip: true,
        jitter,
        grayscale: false,
        blur: None,
        solarize: None,
    };
    let blur = Some(BoxFilter { radius: 1, near: 5 << 20, far: 1 << 19 });
    for (size, dtype) in [(8, DType::F32), (5, DType::BF16), (800, DType::BF16)] {
        let form = Form { size, mean: [0.5; 3], std: [0.2; 3], dtype };
        let picture = Picture { start: 0, width: 7, height: 9 };
        finite(&views(&bytes, &[picture], &[plain, View { blur, ..plain }], &form)?)?;
    }
    Ok(())
}

/// The same settings for every tensor.
fn items<'a, S: Copy>(weights: &'a [Var], gradients: &'a [Var], buffers: &'a [Var], step: S) -> Vec<Item<'a, S>> {
    let item = |((weight, gradient), buffer): ((&'a Var, &'a Var), &'a Var)| Item {
        name: "w",
        weight,
        gradient: gradient.as_tensor(),
        buffer: Some(buffer),
        step,
    };
    weights.iter().zip(gradients).zip(buffers).map(item).collect()
}
