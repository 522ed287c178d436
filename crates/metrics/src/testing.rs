//! Features for tests.

use candle_core::{Device, Result, Tensor};

/// Roughly normal values from a fixed stream.
pub(crate) fn random(rows: usize, cols: usize, seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    // Twelve uniforms less their mean: variance 1.
    let data: Vec<f32> = (0..rows * cols).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect();
    Tensor::from_vec(data, (rows, cols), &Device::Cpu).unwrap()
}

/// `x` times an orthogonal matrix: a Householder reflection and a permutation.
pub(crate) fn rotate(x: &Tensor) -> Result<Tensor> {
    let cols = x.dims()[1];
    let v: Vec<f64> = (0..cols).map(|i| (i as f64 + 1.0).sin()).collect();
    let norm: f64 = v.iter().map(|v| v * v).sum();
    let q: Vec<f32> = (0..cols * cols)
        .map(|i| {
            let (r, c) = (i / cols, (i % cols + 1) % cols);
            (f64::from(u8::from(r == c)) - 2.0 * v[r] * v[c] / norm) as f32
        })
        .collect();
    x.matmul(&Tensor::from_vec(q, (cols, cols), &Device::Cpu)?)
}
