//! What NT-Xent's and InfoNCE's own tests don't reach: TF32, which a switch of the whole process turns on there.

use candle_core::{DType, Result, Tensor};

use super::*;
use crate::check::{Array, device};
use crate::info_nce::{Pairs, reference};

/// Queries against keys in every arithmetic, over several tiles, parts and chunks: the loss, and the sums of weights times keys. Logits reach
/// 30, whose rounding in f32 is 2e-6 of their exponentials.
#[test]
fn every_arithmetic_equals_the_reference() -> Result<()> {
    let Some(gpu) = Gpu::of(&Tensor::zeros(1, DType::F32, &device()?)?) else { return Ok(()) };
    for (arithmetic, share) in [(Arithmetic::F32, 1e-5), (Arithmetic::Tf32, 3e-3), (Arithmetic::Bf16, 1e-2)] {
        for (n, m, d) in [(3, 5, 3), (130, 210, 72), (20, 700, 200)] {
            let [q, keys] = [(n, 1), (m, 2)].map(|(rows, seed)| Array::random(&[rows, d], seed).rounded());
            let tensors = [&q, &keys].map(|x| x.tensor().unwrap().to_dtype(arithmetic.dtype()).unwrap());
            let raw = [Memory::of("test", &gpu, &tensors[0])?, Memory::of("test", &gpu, &tensors[1])?];
            let ready = [ready(&gpu, arithmetic, raw[0], d)?, ready(&gpu, arithmetic, raw[1], d)?];
            let pairs = Pairs { positive: (0..n as u32).map(|i| (i * 7) % m as u32).collect(), excluded: None };
            let (positive, excluded) = (Rule::new(&gpu, &pairs.positive)?, Rule::Nobody);
            let problem = Problem {
                arithmetic,
                rows: operand(&ready[0], raw[0], d),
                columns: operand(&ready[1], raw[1], d),
                temperature: 0.7,
                bounded: false,
                positive: &positive,
                excluded: &excluded,
            };
            let joined = problem.forward(&gpu, None)?;
            let sums = problem.weighted(&gpu, Weights::Rows, &joined.of_rows)?;
            let upstream = Tensor::ones((), DType::F32, &device()?)?;
            let upstream = Memory::of("test", &gpu, &upstream)?;
            let gradient = Gradient { n, width: d, sums: Some(&sums), beside: None, upstream, factor: 1.0 };
            let got = Array::of(&gradient.finish(&gpu, DType::F32)?)?;
            let loss = f64::from(joined.loss.into_tensor(())?.to_scalar::<f32>()?);
            let truth = reference::info_nce_among(&q, &keys, &pairs.positive, None, 0.7);
            assert!((loss / truth - 1.0).abs() < share, "{arithmetic:?} [{n}, {m}, {d}]: {loss} {truth}");
            let expected = weighted(&q, &keys, &pairs.positive, 0.7);
            let largest = expected.iter().fold(0f64, |largest, v| largest.max(v.abs()));
            for (i, (got, expected)) in got.data.iter().zip(&expected).enumerate() {
                let near = (got - expected).abs() <= share * largest;
                assert!(near, "{arithmetic:?} [{n}, {m}, {d}], value {i}: {got} {expected}");
            }
        }
    }
    Ok(())
}

/// For each query the sum of its keys by their shares, less its positive, in f64.
fn weighted(q: &Array, keys: &Array, positive: &[u32], temperature: f64) -> Vec<f64> {
    let d = q.shape[1];
    let mut out = Vec::new();
    for (q, &positive) in q.data.chunks(d).zip(positive) {
        let logit = |key: &[f64]| q.iter().zip(key).map(|(a, b)| a * b).sum::<f64>() / temperature;
        let exponentials: Vec<f64> = keys.data.chunks(d).map(|key| logit(key).exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        let mut row = vec![0.0; d];
        for (j, (key, e)) in keys.data.chunks(d).zip(&exponentials).enumerate() {
            let weight = e / sum - if j == positive as usize { 1.0 } else { 0.0 };
            row.iter_mut().zip(key).for_each(|(sum, key)| *sum += weight * key);
        }
        out.append(&mut row);
    }
    out
}
