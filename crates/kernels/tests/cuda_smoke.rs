//! Whether a device computes at all: Candle's own operations on a GPU (or on the emulator) against the CPU.
//!
//! These tests need a device, and say so where there is none. `cargo xtask emulator` builds one that any machine has.

#![cfg(feature = "cuda")]

use candle_core::{D, DType, Device, IndexOp, Result, Tensor, Var};

fn gpu() -> Device {
    match Device::new_cuda(0) {
        Ok(device) => device,
        Err(e) => panic!(
            "these tests need a CUDA device, and there is none ({e}). `cargo xtask emulator` builds one for the CPU and prints the \
             folder to put in LD_LIBRARY_PATH"
        ),
    }
}

/// Numbers between -2 and 2 that only the seed decides about.
fn numbers(seed: u32, dims: &[usize], device: &Device) -> Result<Tensor> {
    let count: usize = dims.iter().product();
    let value = |i: usize| ((i as u32 ^ seed).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 22) as f32 - 2.0;
    Tensor::from_vec((0..count).map(value).collect::<Vec<_>>(), dims, device)
}

/// The same program on both devices must give the same numbers, up to `tolerance` relative to the largest.
fn same(tolerance: f64, program: impl Fn(&Device) -> Result<Tensor>) {
    let values = |device: &Device| {
        let out = program(device).unwrap().to_dtype(DType::F64).unwrap().flatten_all().unwrap();
        out.to_vec1::<f64>().unwrap()
    };
    let (expected, got) = (values(&Device::Cpu), values(&gpu()));
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(1e-30f64, |max, v| max.max(v.abs()));
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert!((got - expected).abs() <= tolerance * largest, "value {i} is {got}, on the CPU {expected}");
    }
}

#[test]
fn values_come_back_as_they_went() {
    same(0.0, |device| numbers(1, &[3, 5, 7], device)?.transpose(0, 2)?.contiguous());
    same(0.0, |device| numbers(1, &[3, 5, 7], device)?.narrow(1, 1, 3)?.i((.., 2, ..))?.contiguous());
    same(0.0, |device| Tensor::cat(&[&numbers(1, &[3, 5], device)?, &numbers(2, &[3, 4], device)?], 1));
    same(0.0, |device| Tensor::full(1.5f32, (3, 4), device)?.broadcast_add(&Tensor::ones(4, DType::F32, device)?));
}

#[test]
fn arithmetic_is_that_of_the_cpu() {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        let tolerance = if dtype == DType::BF16 { 1e-2 } else { 1e-6 };
        same(tolerance, |device| {
            let (a, b) = (numbers(1, &[33, 65], device)?.to_dtype(dtype)?, numbers(2, &[65], device)?.to_dtype(dtype)?);
            let sum = a.broadcast_add(&b)?.broadcast_mul(&b)?.affine(0.5, 1.0)?;
            sum.exp()?.sqrt()?.maximum(&a)?.sub(&a.tanh()?)
        });
        // On the CPU, Candle adds bf16 numbers up in bf16.
        let rounded = if dtype == DType::BF16 { 5e-2 } else { tolerance };
        same(rounded, |device| numbers(1, &[33, 65], device)?.to_dtype(dtype)?.abs()?.sum(1));
        same(0.0, |device| numbers(1, &[33, 65], device)?.to_dtype(dtype)?.max(0));
    }
    same(0.0, |device| numbers(1, &[2000], device)?.ge(0.5)?.to_dtype(DType::U32)?.sum_all());
    same(0.0, |device| numbers(1, &[9, 50], device)?.argmax(D::Minus1)?.to_dtype(DType::I64));
    same(0.0, |device| {
        let rows = Tensor::from_vec(vec![4u32, 0, 4, 2], 4, device)?;
        let table = numbers(1, &[5, 6], device)?;
        table.index_add(&rows, &table.index_select(&rows, 0)?, 0)
    });
    same(0.0, |device| {
        let x = numbers(1, &[4, 6], device)?;
        x.ge(0.0)?.where_cond(&x, &x.zeros_like()?)
    });
}

#[test]
fn products_of_matrices_are_those_of_the_cpu() {
    for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F64, 1e-12), (DType::BF16, 1e-2)] {
        let matrix = |seed, dims: &[usize], device: &Device| numbers(seed, dims, device)?.to_dtype(dtype);
        same(tolerance, |device| matrix(1, &[17, 33], device)?.matmul(&matrix(2, &[33, 9], device)?));
        same(tolerance, |device| matrix(1, &[33, 17], device)?.t()?.matmul(&matrix(2, &[9, 33], device)?.t()?));
        same(tolerance, |device| matrix(1, &[3, 17, 33], device)?.matmul(&matrix(2, &[3, 33, 9], device)?));
    }
}

#[test]
fn gradients_are_those_of_the_cpu() {
    same(1e-5, |device| {
        let w = Var::from_tensor(&numbers(1, &[20, 10], device)?)?;
        let x = numbers(2, &[8, 20], device)?;
        let y = x.matmul(w.as_tensor())?.tanh()?;
        let loss = y.sqr()?.mean_all()?;
        let gradients = loss.backward()?;
        Ok(gradients.get(&w).expect("a gradient").clone())
    });
}

#[test]
fn random_numbers_have_their_distribution() {
    let device = gpu();
    let normal = Tensor::randn(1.0f32, 2.0, 20_000, &device).unwrap();
    let mean = normal.mean_all().unwrap().to_scalar::<f32>().unwrap();
    let spread = (normal - 1.0).unwrap().sqr().unwrap().mean_all().unwrap().sqrt().unwrap().to_scalar::<f32>().unwrap();
    assert!((mean - 1.0).abs() < 0.1 && (spread - 2.0).abs() < 0.1, "mean {mean}, deviation {spread}");
    let uniform = Tensor::rand(0f32, 1.0, 20_000, &device).unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
    assert!((uniform - 0.5).abs() < 0.02, "mean {uniform}");
}

/// Work of several threads at a time, each with tensors of its own.
#[test]
fn threads_do_not_disturb_each_other() {
    std::thread::scope(|scope| {
        for seed in 0..4 {
            scope.spawn(move || same(1e-6, |device| numbers(seed, &[64, 100], device)?.sqr()?.sum(1)));
        }
    });
}
