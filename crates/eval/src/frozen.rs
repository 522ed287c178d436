//! The proof that an evaluation left a backbone as it was.

use anyhow::{Result, ensure};
use candle_core::DType;
use diptych_nn::ParamStore;
use diptych_random::hash;

/// What every parameter and running statistic of a backbone was when features were taken: name and hash of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen(Vec<(String, u64)>);

impl Frozen {
    /// As `params` are now.
    ///
    /// # Errors
    /// If the device cannot copy.
    pub fn of(params: &ParamStore) -> Result<Self> {
        let digest = |(name, param): (&str, &diptych_nn::Param)| {
            let values = param.var.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            Ok((name.to_string(), hash(&bytes)))
        };
        Ok(Self(params.iter().map(|(name, param)| digest((name, param))).collect::<Result<_>>()?))
    }

    /// That `params` are still the same, bit for bit.
    ///
    /// # Errors
    /// If one has changed; the message names it.
    pub fn check(&self, params: &ParamStore) -> Result<()> {
        let now = Self::of(params)?;
        for ((name, before), (other, after)) in self.0.iter().zip(&now.0) {
            ensure!(name == other && before == after, "{name} has changed in an evaluation, which must not touch it")
        }
        ensure!(self.0.len() == now.0.len(), "an evaluation has changed the number of parameters");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};
    use diptych_nn::{BatchNorm, Group};

    /// A forward pass in training mode moves the running statistics, and is caught; one in evaluation mode moves nothing.
    #[test]
    fn a_moved_statistic_is_named() -> Result<()> {
        let mut params = ParamStore::new(0, &Device::Cpu);
        let norm = BatchNorm::new(&mut params.scope(Group::Trunk), 3, 1.0)?;
        let frozen = Frozen::of(&params)?;
        let x = Tensor::rand(0f32, 1f32, (4, 2, 2, 3), &Device::Cpu)?;
        norm.forward(&x, false)?;
        frozen.check(&params)?;
        norm.forward(&x, true)?;
        let error = frozen.check(&params).unwrap_err().to_string();
        assert!(error.contains("running_mean has changed"), "{error}");
        Ok(())
    }
}
