//! Batch norm against its f64 reference: value, gradients, accuracy at large means, evaluation mode, determinism.

use super::reference;
use super::*;
use crate::check::{Array, Tolerance, check_op, device};
use candle_core::{DType, Var};

mod division;
mod explicit;
mod precision;

const EPS: f64 = 1e-5;

/// Inputs: x, gamma, beta, and a residual if asked.
fn check_train(shape: &[usize], residual: bool, relu: bool, seed: u64) {
    let op = move |t: &[Tensor]| Ok(batch_norm_train(&t[0], Some(&t[1]), Some(&t[2]), t.get(3), relu, EPS)?.y);
    let reference = move |a: &[Array]| {
        let residual = a.get(3).map(|r| r.data.as_slice());
        Array::new(&a[0].shape, reference::train(&a[0].data, &a[1].data, &a[2].data, residual, relu, EPS))
    };
    check_op(&op, &reference, &inputs(shape, residual, seed), Tolerance { value: 1e-5, grad: 2e-5 }).unwrap();
}

fn inputs(shape: &[usize], residual: bool, seed: u64) -> Vec<Array> {
    let c = [*shape.last().unwrap()];
    let mut all = vec![Array::random(shape, seed), Array::random(&c, seed + 1), Array::random(&c, seed + 2)];
    if residual {
        all.push(Array::random(shape, seed + 3));
    }
    all
}

#[test]
fn training_equals_the_reference_on_odd_shapes() {
    check_train(&[2, 3, 5, 7], false, false, 1);
    check_train(&[3, 2, 2, 1], false, false, 2);
    check_train(&[4, 3, 67], false, false, 3);
}

#[test]
fn residual_and_relu_are_fused_exactly() {
    check_train(&[2, 3, 2, 5], false, true, 11);
    check_train(&[2, 3, 2, 5], true, false, 12);
    check_train(&[2, 3, 2, 5], true, true, 13);
}

#[test]
fn evaluation_mode_equals_the_reference() {
    let (mean, var) = (vec![0.3, -0.2, 0.0], vec![0.5, 2.0, 0.01]);
    let (m, v) = (mean.clone(), var.clone());
    let op = move |t: &[Tensor]| {
        let (m, v) = (Tensor::new(m.as_slice(), &device()?)?, Tensor::new(v.as_slice(), &device()?)?);
        batch_norm_eval(&t[0], Some(&t[1]), Some(&t[2]), &m, &v, t.get(3), true, EPS)
    };
    let reference = move |a: &[Array]| {
        let residual = a.get(3).map(|r| r.data.as_slice());
        let y = reference::apply(&a[0].data, &a[1].data, &a[2].data, residual, &mean, &var, true, EPS);
        Array::new(&a[0].shape, y)
    };
    check_op(&op, &reference, &inputs(&[2, 3, 3], false, 21), Tolerance::default()).unwrap();
    check_op(&op, &reference, &inputs(&[2, 3, 3], true, 22), Tolerance::default()).unwrap();
}

/// Without gamma and beta it is the same as with ones and zeros.
#[test]
fn gamma_and_beta_default_to_one_and_zero() -> Result<()> {
    let x = Array::random(&[6, 4], 5).tensor()?;
    let (one, zero) = (Tensor::ones(4, DType::F32, &device()?)?, Tensor::zeros(4, DType::F32, &device()?)?);
    let without = batch_norm_train(&x, None, None, None, false, EPS)?.y.to_vec2::<f32>()?;
    let with = batch_norm_train(&x, Some(&one), Some(&zero), None, false, EPS)?.y.to_vec2::<f32>()?;
    assert_eq!(without, with);
    Ok(())
}

/// Mean 1e4, standard deviation 1, over several chunks and blocks: a naive E[x^2] - E[x]^2 in f32 gives garbage here.
#[test]
fn statistics_survive_a_large_mean() -> Result<()> {
    for (rows, channels) in [(30_011, 3), (5_003, 40), (1_001, 130)] {
        let x = Array::random(&[rows, channels], 9).map(|v| f64::from((1e4 + v * 3f64.sqrt()) as f32));
        let out = batch_norm_train(&x.tensor()?, None, None, None, false, EPS)?;
        let (mean, var) = reference::statistics(&x.data, channels);
        let (ones, zeros) = (vec![1.0; channels], vec![0.0; channels]);
        let y = reference::apply(&x.data, &ones, &zeros, None, &mean, &var, false, EPS);
        for (got, expected) in out.var.to_vec1::<f32>()?.iter().zip(&var) {
            assert!((f64::from(*got) / expected - 1.0).abs() < 1e-5, "variance {got}, expected {expected}");
        }
        for (got, expected) in out.mean.to_vec1::<f32>()?.iter().zip(&mean) {
            assert!((f64::from(*got) / expected - 1.0).abs() < 1e-7, "mean {got}, expected {expected}");
        }
        for (got, expected) in Array::of(&out.y)?.data.iter().zip(&y) {
            assert!((got - expected).abs() < 1e-5, "{got}, expected {expected}");
        }
    }
    Ok(())
}

/// Large enough for several tasks: gradients against sums in f64.
#[test]
fn gradients_of_many_rows_equal_plain_sums() -> Result<()> {
    let (rows, channels) = (9_001, 20);
    let x = Array::random(&[rows, channels], 31);
    let dy = Array::random(&[rows, channels], 32);
    let var = Var::from_tensor(&x.tensor()?)?;
    let (gamma, beta) = (
        Var::from_tensor(&Tensor::full(1.5f32, channels, &device()?)?)?,
        Var::zeros(channels, DType::F32, &device()?)?,
    );
    let y = batch_norm_train(var.as_tensor(), Some(&gamma), Some(&beta), None, false, EPS)?.y;
    let grads = (y * dy.tensor()?)?.sum_all()?.backward()?;
    let (mean, variance) = reference::statistics(&x.data, channels);
    let (mut sum, mut cross) = (vec![0.0; channels], vec![0.0; channels]);
    let normalized: Vec<f64> =
        (0..x.data.len()).map(|i| (x.data[i] - mean[i % channels]) / (variance[i % channels] + EPS).sqrt()).collect();
    for i in 0..x.data.len() {
        sum[i % channels] += dy.data[i];
        cross[i % channels] += dy.data[i] * normalized[i];
    }
    let dx = Array::of(grads.get(&var).unwrap())?;
    for (i, normalized) in normalized.iter().enumerate() {
        let c = i % channels;
        let expected = 1.5 / (variance[c] + EPS).sqrt()
            * (dy.data[i] - sum[c] / rows as f64 - normalized * cross[c] / rows as f64);
        assert!((dx.data[i] - expected).abs() < 1e-5, "dx[{i}] is {}, expected {expected}", dx.data[i]);
    }
    for (got, expected) in Array::of(grads.get(&gamma).unwrap())?.data.iter().zip(&cross) {
        assert!((got - expected).abs() < 1e-3 * expected.abs().max(1.0), "dgamma {got}, expected {expected}");
    }
    Ok(())
}

/// The same bits from 1, 2 and 5 threads, forward and backward, with a residual and ReLU.
#[test]
fn the_number_of_threads_changes_nothing() -> Result<()> {
    let run = || -> Result<Vec<Vec<u32>>> {
        let vars: Vec<Var> =
            inputs(&[7, 31, 29, 24], true, 41).iter().map(|a| Var::from_tensor(&a.tensor()?)).collect::<Result<_>>()?;
        let out = batch_norm_train(&vars[0], Some(&vars[1]), Some(&vars[2]), Some(&vars[3]), true, EPS)?;
        let grads = out.y.sqr()?.sum_all()?.backward()?;
        let bits = |t: &Tensor| -> Result<Vec<u32>> {
            Ok(t.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
        };
        let mut all = vec![bits(&out.y)?, bits(&out.mean)?, bits(&out.var)?];
        for var in &vars {
            all.push(bits(grads.get(var).unwrap())?);
        }
        Ok(all)
    };
    let with = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run);
    let one = with(1)?;
    assert!(one == with(2)?, "2 threads differ from 1");
    assert!(one == with(5)?, "5 threads differ from 1");
    Ok(())
}

/// One row: variance 0, y = beta, no gradient for x, and nothing infinite.
#[test]
fn a_single_row_gives_beta() -> Result<()> {
    let x = Var::new(&[[3f32, -2.0]], &device()?)?;
    let beta = Var::new(&[0.5f32, -0.25], &device()?)?;
    let out = batch_norm_train(&x, None, Some(&beta), None, false, EPS)?;
    assert_eq!(out.y.to_vec2::<f32>()?, [[0.5, -0.25]]);
    assert_eq!(out.var.to_vec1::<f32>()?, [0.0, 0.0]);
    let grads = out.y.sum_all()?.backward()?;
    assert_eq!(grads.get(&x).unwrap().to_vec2::<f32>()?, [[0.0, 0.0]]);
    assert_eq!(grads.get(&beta).unwrap().to_vec1::<f32>()?, [1.0, 1.0]);
    Ok(())
}

/// A NaN in one channel reaches y in that channel, through the ReLU, and no other channel.
#[test]
fn nan_is_not_hidden_by_the_relu() -> Result<()> {
    let x = Tensor::new(&[[1f32, f32::NAN], [2.0, 1.0], [4.0, 0.0]], &device()?)?;
    let y = batch_norm_train(&x, None, None, None, true, EPS)?.y.to_vec2::<f32>()?;
    assert!(y.iter().all(|row| row[0].is_finite() && row[1].is_nan()), "{y:?}");
    Ok(())
}

#[test]
fn wrong_shapes_are_named() -> Result<()> {
    let x = Tensor::zeros((2, 3), DType::F32, &device()?)?;
    let gamma = Tensor::zeros(4, DType::F32, &device()?)?;
    let error = |r: Result<BatchNorm>| r.map(|_| ()).unwrap_err().to_string();
    let got = error(batch_norm_train(&x, Some(&gamma), None, None, false, EPS));
    assert!(got.contains("gamma has shape [4]; x has 3 channels"), "{got}");
    let got = error(batch_norm_train(&x, None, None, Some(&gamma), false, EPS));
    assert!(got.contains("residual has shape [4]"), "{got}");
    let got = error(batch_norm_train(&x, None, None, None, false, 0.0));
    assert!(got.contains("eps is 0"), "{got}");
    let got = error(batch_norm_train(&x.to_dtype(DType::F64)?, None, None, None, false, EPS));
    assert!(got.contains("only f32 and bf16"), "{got}");
    Ok(())
}
