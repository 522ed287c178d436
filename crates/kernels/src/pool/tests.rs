//! Pooling against its f64 reference, on ties, NaN and impossible windows, and without a graph.

use super::cpu::Window;
use super::*;
use crate::check::{Array, Tolerance, check_op, check_op_bf16, device};
use candle_core::Var;

fn check_max(shape: [usize; 4], kernel: usize, stride: usize, padding: usize) {
    let reference = move |a: &[Array]| {
        let [n, height, width, channels] = shape;
        let output = [height, width].map(|v| (v + 2 * padding - kernel) / stride + 1);
        let window = Window { input: [height, width, channels], output, kernel, stride, padding };
        Array::new(&[n, output[0], output[1], channels], reference::max_pool(&a[0].data, n, window))
    };
    // A shuffled grid: values far enough from each other that a finite difference meets no tie.
    let n: usize = shape.iter().product();
    let x = Array::new(&shape, (0..n).map(|i| (i * 7919 % n) as f64 / 64.0 - 1.0).collect());
    let op = |t: &[Tensor]| max_pool2d(&t[0], kernel, stride, padding);
    check_op(&op, &reference, &[x], Tolerance::default()).unwrap();
    // The same in bf16, on values that it holds exactly.
    let x = Array::new(&shape, (0..n).map(|i| (i * 7919 % n) as f64 / 4.0 - 8.0).collect());
    if n <= 256 {
        check_op_bf16(&op, &reference, &[x], &[0], Tolerance::BF16).unwrap();
    }
}

#[test]
fn max_pool_equals_the_reference() {
    check_max([2, 7, 5, 3], 3, 2, 1);
    check_max([1, 5, 6, 2], 2, 2, 0);
    check_max([2, 4, 3, 1], 3, 1, 1);
    check_max([1, 3, 7, 2], 1, 3, 0);
    check_max([1, 4, 3, 70], 3, 2, 1);
    check_max([2, 5, 4, 8], 3, 2, 1);
    check_max([1, 6, 6, 1], 5, 1, 2);
    check_max([1, 1, 1, 3], 3, 2, 1);
}

#[test]
fn average_equals_the_reference() {
    let reference = |a: &[Array]| {
        let s = &a[0].shape;
        Array::new(&[s[0], s[3]], reference::average(&a[0].data, s[1] * s[2], s[3]))
    };
    let op = |t: &[Tensor]| global_avg_pool(&t[0]);
    for (shape, seed) in [([3, 2, 5, 7], 1), ([1, 1, 1, 3], 2), ([2, 3, 1, 67], 3), ([2, 9, 8, 8], 4)] {
        let x = [Array::random(&shape, seed)];
        check_op(&op, &reference, &x, Tolerance::default()).unwrap();
        check_op_bf16(&op, &reference, &x, &[0], Tolerance::BF16).unwrap();
    }
}

fn gradient_of_sum(x: &[f32], side: usize, kernel: usize) -> Result<Vec<f32>> {
    let x = Var::from_slice(x, (1, side, side, 1), &device()?)?;
    let grads = max_pool2d(&x, kernel, 1, 0)?.sum_all()?.backward()?;
    grads.get(&x).unwrap().flatten_all()?.to_vec1()
}

/// PyTorch 2.15: F.max_pool2d(torch.ones(1, 1, 3, 3), 2, 1).sum() has gradient [[1, 1, 0], [1, 1, 0], [0, 0, 0]].
#[test]
fn ties_give_the_gradient_to_the_first() -> Result<()> {
    assert_eq!(gradient_of_sum(&[1.0; 9], 3, 2)?, [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(gradient_of_sum(&[f32::NEG_INFINITY; 4], 2, 2)?, [1.0, 0.0, 0.0, 0.0]);
    Ok(())
}

/// PyTorch 2.15: the same on [[1, nan], [nan, 3]] gives nan and gradient [[0, 0], [1, 0]].
#[test]
fn nan_propagates() -> Result<()> {
    let x = [1.0, f32::NAN, f32::NAN, 3.0];
    let y = max_pool2d(&Tensor::from_slice(&x, (1, 2, 2, 1), &device()?)?, 2, 1, 0)?;
    assert!(y.flatten_all()?.to_vec1::<f32>()?[0].is_nan());
    assert_eq!(gradient_of_sum(&x, 2, 2)?, [0.0, 0.0, 1.0, 0.0]);
    Ok(())
}

#[test]
fn impossible_windows_are_refused() -> Result<()> {
    let x = Tensor::zeros((1, 2, 2, 1), candle_core::DType::F32, &device()?)?;
    for (kernel, stride, padding) in [(3, 1, 0), (0, 1, 0), (2, 0, 0), (2, 1, 2), (16, 1, 8)] {
        assert!(max_pool2d(&x, kernel, stride, padding).is_err(), "{kernel} {stride} {padding}");
    }
    Ok(())
}

/// Bit for bit, with rows enough for several tasks, from 1 and 2 threads.
#[test]
fn passes_without_a_graph_equal_the_op() -> Result<()> {
    let shape = [3, 57, 40, 9];
    let run = |dtype: DType| -> Result<()> {
        let x = Var::from_tensor(&Array::random(&shape, 3).tensor()?.to_dtype(dtype)?)?;
        let y = max_pool2d(&x, 3, 2, 1)?;
        let dy = Array::random(y.dims(), 4).tensor()?.to_dtype(dtype)?;
        let grads = (&y * &dy)?.sum_all()?.backward()?;
        let (again, places) = max_forward(&x.as_detached_tensor(), 3, 2, 1)?;
        let dx = max_backward(&dy, &places, shape, 3, 2, 1)?;
        let values = |t: &Tensor| t.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
        assert!(values(&y)? == values(&again)? && values(grads.get(&x).unwrap())? == values(&dx)?, "{dtype:?} max");
        let y = global_avg_pool(&x)?;
        let grads = y.sqr()?.sum_all()?.backward()?;
        let dx = average_backward(&(y.detach() * 2.0)?, shape)?;
        assert!(values(grads.get(&x).unwrap())? == values(&dx)?, "{dtype:?} average");
        Ok(())
    };
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(DType::F32).and_then(|()| run(DType::BF16)))?;
    }
    Ok(())
}
