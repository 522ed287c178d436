//! Numbers to compute with.

use anyhow::Result;
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor, Var};
use diptych_random::Stream;
use rayon::prelude::*;

/// Values that one stream draws.
const CHUNK: usize = 1 << 16;

/// Values of mean 0 and deviation `std`, the same at every call with this name and shape, on every device.
pub(crate) fn random(name: &str, shape: &[usize], std: f64, dtype: DType, device: &Device) -> Result<Tensor> {
    let half = std * 3f64.sqrt();
    let mut values = vec![0f32; shape.iter().product()];
    values.par_chunks_mut(CHUNK).enumerate().for_each(|(i, chunk)| {
        let mut stream = Stream::keyed(0, &[diptych_random::hash(name.as_bytes()), i as u64]);
        chunk.iter_mut().for_each(|value| *value = ((2.0 * stream.uniform() - 1.0) * half) as f32);
    });
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
}

/// A variable that shares nothing with `tensor`.
pub(crate) fn variable(tensor: &Tensor) -> Result<Var> {
    Ok(Var::from_tensor(&tensor.copy()?)?)
}

/// A scalar whose gradient for `y` is `dy`: where a backward pass begins with a given gradient, at no cost of its own.
pub(crate) fn pull(y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    Ok(y.apply_op1(Pull { dy: dy.clone() })?)
}

struct Pull {
    dy: Tensor,
}

impl CustomOp1 for Pull {
    fn name(&self) -> &'static str {
        "pull"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        y: &candle_core::CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        use candle_core::backend::{BackendDevice, BackendStorage};
        let shape = Shape::from(());
        Ok((y.device().zeros_impl(&shape, DType::F32)?, shape))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(self.dy.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_depend_on_their_name_only_and_have_the_deviation() -> Result<()> {
        let draw = |name: &str| {
            random(name, &[1000, 10], 2.0, DType::F32, &Device::Cpu)?
                .flatten_all()?
                .to_vec1::<f32>()
                .map_err(anyhow::Error::from)
        };
        let a = draw("a")?;
        assert_eq!(a, draw("a")?);
        assert_ne!(a, draw("b")?);
        let square = a.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / a.len() as f64;
        assert!((square.sqrt() - 2.0).abs() < 0.05, "{square}");
        Ok(())
    }

    #[test]
    fn a_pull_gives_its_gradient() -> Result<()> {
        let x = Var::new(&[1f32, 2.0], &Device::Cpu)?;
        let dy = Tensor::new(&[3f32, 5.0], &Device::Cpu)?;
        let gradients = pull(&x.affine(2.0, 0.0)?, &dy)?.backward()?;
        assert_eq!(gradients.get(&x).unwrap().to_vec1::<f32>()?, [6.0, 10.0]);
        Ok(())
    }
}
