//! NT-Xent, SimCLR's contrastive loss, as one op that never holds the 2N x 2N similarity matrix.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod pairs;
pub mod reference;

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use crate::dense::slice;
use crate::embeddings::pair_for_products;

const NAME: &str = "nt_xent";

/// NT-Xent: the normalized, temperature-scaled cross entropy over 2N views (SimCLR, arXiv:2002.05709, eq. 1).
///
/// `z1`, `z2`: `[N, D]`, any scale, row i of both from the same image; they are L2-normalized here.
/// Returns the mean over the 2N rows, `[]` f32. A row of zeros normalizes to zeros and gets no gradient.
///
/// ```text
/// l(i, j) = -log( exp(s_ij / t) / sum_{k != i} exp(s_ik / t) ),  s = cosine similarity
/// ```
///
/// Memory is O(N D): the similarity matrix is made in tiles and made again in the backward pass. The result is the same
/// for any number of threads.
///
/// The tensors are f32 or bf16. On the CPU the loss of bf16 values is that of the same numbers in f32. On a GPU tensor cores multiply the
/// normalized rows rounded to bf16, and in the gradient weights rounded to bf16: logits are right to about 2^-9 / t; sums are f32.
///
/// # Errors
/// If the shapes differ, N < 2, `temperature` is not positive and finite, or the tensors are of another type or on two devices.
pub fn nt_xent(z1: &Tensor, z2: &Tensor, temperature: f64) -> Result<Tensor> {
    let (z1, z2) = pair_for_products(NAME, z1, z2)?;
    if !(temperature.is_finite() && temperature > 0.0 && (1.0 / temperature) as f32 <= f32::MAX / 2.0) {
        bail!("{NAME}: the temperature must be positive and finite, is {temperature}")
    }
    z1.apply_op2(&z2, NtXent { temperature, saved: OnceLock::new() })
}

/// One application of the op; its forward pass leaves here what its backward pass needs.
struct NtXent {
    temperature: f64,
    saved: OnceLock<Saved>,
}

enum Saved {
    Cpu(cpu::Saved),
    #[cfg(feature = "cuda")]
    Cuda(Box<cuda::Saved>),
}

impl NtXent {
    fn keep(&self, saved: Saved) -> Result<()> {
        match self.saved.set(saved) {
            Ok(()) => Ok(()),
            Err(_) => bail!("{NAME}: one op value was applied twice"),
        }
    }
}

impl CustomOp2 for NtXent {
    fn name(&self) -> &'static str {
        "nt-xent"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (z1, z2) = (slice(NAME, s1, l1)?, slice(NAME, s2, l2)?);
        let (loss, saved) = cpu::forward(z1, z2, l1.dims()[1], self.temperature);
        self.keep(Saved::Cpu(saved))?;
        Ok((CpuStorage::F32(vec![loss]), Shape::from(())))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &candle_core::CudaStorage,
        l1: &Layout,
        s2: &candle_core::CudaStorage,
        l2: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (loss, saved) = cuda::forward(s1, l1, s2, l2, self.temperature)?;
        self.keep(Saved::Cuda(Box::new(saved)))?;
        Ok((loss, Shape::from(())))
    }

    fn bwd(
        &self,
        z1: &Tensor,
        z2: &Tensor,
        _loss: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let saved = match self.saved.get() {
            None => bail!("{NAME}: backward before forward"),
            Some(Saved::Cpu(saved)) => saved,
            #[cfg(feature = "cuda")]
            Some(Saved::Cuda(saved)) => {
                let gpu = crate::cuda::Gpu::of(z1);
                let Some(gpu) = gpu else { bail!("{NAME}: backward on another device than forward") };
                let [d1, d2] = cuda::backward(&gpu, saved, [z1, z2], upstream, self.temperature)?;
                return Ok((Some(d1), Some(d2)));
            }
        };
        let upstream = upstream.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let (n, d) = z2.dims2()?;
        let both = Tensor::from_vec(cpu::backward(saved, upstream), (2 * n, d), z1.device())?;
        Ok((Some(both.narrow(0, 0, n)?), Some(both.narrow(0, n, n)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Array, Tolerance, check_op, device};
    use candle_core::{Device, Var};

    fn check(n: usize, d: usize, temperature: f64) {
        let inputs = [Array::random(&[n, d], 11), Array::random(&[n, d], 12).map(|v| 3.0 * v)];
        let reference = |z: &[Array]| Array::new(&[], vec![reference::nt_xent(&z[0], &z[1], temperature)]);
        check_op(&|z| nt_xent(&z[0], &z[1], temperature), &reference, &inputs, Tolerance::default()).unwrap();
    }

    #[test]
    fn nt_xent_equals_the_reference() {
        check(2, 1, 0.5);
        check(3, 5, 0.1);
        check(7, 4, 0.5);
        check(8, 3, 2.0);
    }

    /// Odd and even numbers of blocks, cut off in the middle; below a temperature of 1/39 each row has a maximum of its own.
    #[test]
    fn nt_xent_equals_the_reference_over_many_tiles() -> Result<()> {
        for (n, d, temperature) in [(300, 9, 0.5), (257, 3, 0.07), (390, 5, 0.02), (257, 4, 0.02)] {
            let (a, b) = (Array::random(&[n, d], 1), Array::random(&[n, d], 2));
            let loss = nt_xent(&a.tensor()?, &b.tensor()?, temperature)?.to_scalar::<f32>()?;
            let truth = reference::nt_xent(&a, &b, temperature);
            assert!((f64::from(loss) / truth - 1.0).abs() < 1e-6, "{loss} {truth}");
            // The derivative along the gradient is its squared length.
            let (va, vb) = (Var::from_tensor(&a.tensor()?)?, Var::from_tensor(&b.tensor()?)?);
            let grads = nt_xent(&va, &vb, temperature)?.backward()?;
            let (ga, gb) = (Array::of(grads.get(&va).unwrap())?, Array::of(grads.get(&vb).unwrap())?);
            let squares: f64 = ga.data.iter().chain(&gb.data).map(|v| v * v).sum();
            let along = |h: f64| {
                let walk = |x: &Array, g: &Array| {
                    Array::new(&x.shape, x.data.iter().zip(&g.data).map(|(x, g)| x + h * g).collect())
                };
                reference::nt_xent(&walk(&a, &ga), &walk(&b, &gb), temperature)
            };
            let h = 1e-3 / squares.sqrt();
            let slope = (along(h) - along(-h)) / (2.0 * h);
            assert!((slope / squares - 1.0).abs() < 1e-4, "{slope} {squares}");
        }
        Ok(())
    }

    /// Several blocks of rows, widths that are no whole vectors or more than a chunk, in bf16: gradients against central differences of the
    /// reference along random directions.
    #[test]
    fn nt_xent_in_bf16_equals_the_reference_over_many_tiles() -> Result<()> {
        for (n, d, temperature) in [(70, 13, 0.5), (150, 72, 0.2), (67, 128, 0.1), (40, 300, 0.1)] {
            let z = [1, 2].map(|seed| Array::random(&[n, d], seed).rounded());
            let vars =
                [0, 1].map(|i| Var::from_tensor(&z[i].tensor().unwrap().to_dtype(DType::BF16).unwrap()).unwrap());
            let loss = nt_xent(&vars[0], &vars[1], temperature)?;
            let truth = reference::nt_xent(&z[0], &z[1], temperature);
            let value = f64::from(loss.to_scalar::<f32>()?);
            assert!((value / truth - 1.0).abs() < 2e-3, "[{n}, {d}]: {value} {truth}");
            let grads = loss.backward()?;
            let grads = [0, 1].map(|i| Array::of(grads.get(&vars[i]).unwrap()).unwrap());
            let length = grads.iter().flat_map(|g| &g.data).map(|v| v * v).sum::<f64>().sqrt();
            for seed in 3..6 {
                let along = [0, 1].map(|i| Array::random(&[n, d], seed + 10 * i));
                let at = |h: f64| {
                    let walk = |i: usize| {
                        Array::new(&[n, d], z[i].data.iter().zip(&along[i].data).map(|(z, a)| z + h * a).collect())
                    };
                    reference::nt_xent(&walk(0), &walk(1), temperature)
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                let got: f64 = (0..2).flat_map(|i| grads[i].data.iter().zip(&along[i].data)).map(|(g, a)| g * a).sum();
                // The direction's values are about 0.6 each, and errors of the gradient's values independent of each other.
                assert!((slope - got).abs() < 0.02 * length, "[{n}, {d}]: {got} {slope} of {length}");
            }
        }
        Ok(())
    }

    /// 1 / t = 10,000: exp of a raw logit would overflow, and rows differ in their log-sum-exp by thousands.
    #[test]
    fn a_tiny_temperature_stays_finite_and_right() -> Result<()> {
        let (a, b) = (Array::random(&[5, 3], 1), Array::random(&[5, 3], 2));
        let (va, vb) = (Var::from_tensor(&a.tensor()?)?, Var::from_tensor(&b.tensor()?)?);
        let loss = nt_xent(&va, &vb, 1e-4)?;
        let truth = reference::nt_xent(&a, &b, 1e-4);
        assert!((f64::from(loss.to_scalar::<f32>()?) / truth - 1.0).abs() < 1e-5);
        let grads = loss.backward()?;
        assert!(Array::of(grads.get(&va).unwrap())?.data.iter().all(|v| v.is_finite()));
        Ok(())
    }

    #[test]
    fn a_zero_row_gets_no_gradient_and_spoils_nothing() -> Result<()> {
        let a = Var::new(&[[0f32, 0.0], [1.0, 2.0], [3.0, -1.0]], &device()?)?;
        let b = Var::new(&[[1f32, 1.0], [1.0, 2.5], [1e-30, -1e-30]], &device()?)?;
        let loss = nt_xent(&a, &b, 0.5)?;
        let truth = reference::nt_xent(&Array::of(&a)?, &Array::of(&b)?, 0.5);
        assert!((f64::from(loss.to_scalar::<f32>()?) - truth).abs() < 1e-6);
        let grads = loss.backward()?;
        let ga = grads.get(&a).unwrap().to_vec2::<f32>()?;
        assert_eq!(ga[0], [0.0, 0.0]);
        assert!(ga[1][0] != 0.0 && ga.iter().flatten().all(|v| v.is_finite()));
        Ok(())
    }

    #[test]
    fn a_nan_is_not_hidden() -> Result<()> {
        let a = Tensor::new(&[[f32::NAN, 0.0], [1.0, 2.0]], &device()?)?;
        assert!(nt_xent(&a, &a.ones_like()?, 0.5)?.to_scalar::<f32>()?.is_nan());
        Ok(())
    }

    #[test]
    fn threads_do_not_change_a_bit() -> Result<()> {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| -> Result<_> {
                let a = Var::from_tensor(&Array::random(&[500, 17], 1).tensor()?)?;
                let b = Array::random(&[500, 17], 2).tensor()?;
                let loss = nt_xent(&a, &b, 0.2)?;
                let grads = loss.backward()?;
                Ok((loss.to_scalar::<f32>()?, grads.get(&a).unwrap().to_vec2::<f32>()?))
            })
        };
        assert_eq!(run(1)?, run(3)?);
        assert_eq!(run(1)?, run(2)?);
        Ok(())
    }

    #[test]
    fn bad_arguments_are_named() -> Result<()> {
        let z = |n, d| Tensor::zeros((n, d), DType::F32, &Device::Cpu);
        let error = |r: Result<Tensor>| r.unwrap_err().to_string();
        assert!(error(nt_xent(&z(3, 4)?, &z(3, 5)?, 0.5)).contains("[3, 4] and [3, 5]"));
        assert!(error(nt_xent(&z(1, 4)?, &z(1, 4)?, 0.5)).contains("at least 2 rows"));
        assert!(error(nt_xent(&z(3, 4)?, &z(3, 4)?, 0.0)).contains("temperature must be positive"));
        assert!(error(nt_xent(&z(3, 4)?, &z(3, 4)?, f64::NAN)).contains("temperature must be positive"));
        let f64s = z(3, 4)?.to_dtype(DType::F64)?;
        assert!(error(nt_xent(&f64s, &f64s, 0.5)).contains("f32"));
        Ok(())
    }
}
