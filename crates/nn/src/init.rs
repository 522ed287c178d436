//! Initial values, functions of (seed, parameter name) alone.

use candle_core::{Device, Result, Tensor};
use diptych_random::Stream;

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Every value the same.
    Constant(f64),
    /// Normal with this standard deviation.
    Normal(f64),
    /// Uniform in [-bound, bound].
    Uniform(f64),
    /// Normal with variance 2 / fan_out (He et al. 2015, eq. 14), torchvision's choice for convolutions.
    KaimingNormalFanOut,
    /// Uniform in ±1 / sqrt(fan_in), PyTorch's default for linear layers.
    UniformFanIn,
}

impl Init {
    /// Draws a tensor of `shape` from the stream of (`seed`, `name`). Weights are `[O, I]` or `[O, kh, kw, I]`.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn draw(self, shape: &[usize], seed: u64, name: &str, device: &Device) -> Result<Tensor> {
        let len: usize = shape.iter().product();
        let fan_out: usize = shape.iter().rev().skip(1).product();
        let fan_in: usize = shape.iter().skip(1).product();
        let mut stream = Stream::named(seed, name);
        let values: Vec<f32> = match self {
            Self::Constant(value) => vec![value as f32; len],
            Self::Normal(std) => (0..len).map(|_| (std * stream.normal()) as f32).collect(),
            Self::Uniform(bound) => (0..len).map(|_| stream.range(-bound, bound) as f32).collect(),
            Self::KaimingNormalFanOut => {
                let std = (2.0 / fan_out.max(1) as f64).sqrt();
                (0..len).map(|_| (std * stream.normal()) as f32).collect()
            }
            Self::UniformFanIn => {
                let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
                (0..len).map(|_| stream.range(-bound, bound) as f32).collect()
            }
        };
        Tensor::from_vec(values, shape, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kaiming_normal_has_the_variance_of_its_fan_out() -> Result<()> {
        let w = Init::KaimingNormalFanOut.draw(&[64, 3, 3, 16], 1, "w", &Device::Cpu)?;
        let variance = w.sqr()?.mean_all()?.to_scalar::<f32>()?;
        assert!((variance - 2.0 / (64.0 * 9.0)).abs() < 2e-4, "{variance}");
        Ok(())
    }

    #[test]
    fn values_depend_on_seed_and_name_only() -> Result<()> {
        let draw = |seed, name| Init::Normal(1.0).draw(&[7], seed, name, &Device::Cpu)?.to_vec1::<f32>();
        assert_eq!(draw(1, "a")?, draw(1, "a")?);
        assert_ne!(draw(1, "a")?, draw(1, "b")?);
        assert_ne!(draw(1, "a")?, draw(2, "a")?);
        Ok(())
    }
}
