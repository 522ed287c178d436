//! Learned directions that embeddings are compared with.

use candle_core::{DType, Result, Tensor, Var, bail};
use diptych_kernels::{l2_normalize, linear};
use diptych_nn::{Group, Init, Role, Scope};

/// K prototypes of SwAV (Caron et al. 2020, section 3.1): `[N, D]` to scores `[N, K]`.
///
/// ```text
/// scores = z C^T,  z and the rows of C at length 1
/// ```
///
/// The weight C, `[K, D]`, is the parameter `weight` of the scope, in [`Group::Prototypes`]. It is drawn as PyTorch draws a
/// linear layer and brought to length 1; after each step of an optimizer [`Self::normalize`] does that again.
#[derive(Clone, Debug)]
pub struct Prototypes {
    weight: Var,
}

impl Prototypes {
    /// Creates `count` prototypes of width `inputs` in `scope`.
    ///
    /// # Errors
    /// If one of the two is 0, or the name is taken.
    pub fn new(scope: &mut Scope, inputs: usize, count: usize) -> Result<Self> {
        if inputs == 0 || count == 0 {
            bail!("{}: {count} prototypes of width {inputs} can't be built; both must be at least 1", scope.path())
        }
        let mut scope = scope.group(Group::Prototypes);
        let weight = scope.get("weight", &[count, inputs], Role::Weight, Init::UniformFanIn)?;
        let prototypes = Self { weight };
        prototypes.normalize()?;
        Ok(prototypes)
    }

    /// The cosine similarities of `z` `[N, D]` (f32 or bf16, any scale; L2-normalized here) and the prototypes: `[N, K]` f32.
    ///
    /// With `train`, gradients go to `z` and to the weight, which is taken as it is.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn forward(&self, z: &Tensor, train: bool) -> Result<Tensor> {
        let z = if z.dtype() == DType::BF16 { z.to_dtype(DType::F32)? } else { z.clone() };
        let z = l2_normalize(&z)?;
        match train {
            true => linear(&z, self.weight.as_tensor(), None),
            false => linear(&z.detach(), &self.weight.as_detached_tensor(), None),
        }
    }

    /// Brings every prototype to length 1, in place.
    ///
    /// # Errors
    /// If the device fails.
    pub fn normalize(&self) -> Result<()> {
        self.weight.set(&l2_normalize(&self.weight.as_detached_tensor())?)
    }

    /// K, how many there are.
    pub fn count(&self) -> usize {
        self.weight.dims()[0]
    }

    /// The weight, `[K, D]`.
    pub fn weight(&self) -> &Var {
        &self.weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use diptych_nn::ParamStore;

    fn prototypes() -> Result<(ParamStore, Prototypes)> {
        let mut store = ParamStore::new(0, &Device::Cpu);
        let prototypes = Prototypes::new(&mut store.scope(Group::Projector).pp("prototypes"), 5, 7)?;
        Ok((store, prototypes))
    }

    fn lengths(weight: &Var) -> Result<Vec<f32>> {
        weight.as_detached_tensor().sqr()?.sum(1)?.to_vec1()
    }

    /// Created at length 1, and again after a change, through every handle of the parameter.
    #[test]
    fn prototypes_have_length_1() -> Result<()> {
        let (store, prototypes) = prototypes()?;
        let param = store.get("prototypes.weight").unwrap();
        assert_eq!((param.group, param.role), (Group::Prototypes, Role::Weight));
        let near_1 =
            |weight: &Var| Ok::<_, candle_core::Error>(lengths(weight)?.iter().all(|v| (v - 1.0).abs() < 1e-6));
        assert!(near_1(&param.var)?);
        param.var.set(&param.var.as_detached_tensor().affine(3.0, 0.1)?)?;
        assert!(!near_1(&param.var)?);
        prototypes.normalize()?;
        assert!(near_1(&param.var)?);
        Ok(())
    }

    /// The score of a prototype with itself is 1, whatever the embedding's length; in evaluation nothing is tracked.
    #[test]
    fn scores_are_cosines() -> Result<()> {
        let (_, prototypes) = prototypes()?;
        let z = prototypes.weight().as_detached_tensor().affine(4.0, 0.0)?;
        let scores = prototypes.forward(&z, true)?;
        assert_eq!(scores.dims(), [7, 7]);
        let rows = scores.to_vec2::<f32>()?;
        assert!((0..7).all(|i| (rows[i][i] - 1.0).abs() < 1e-6));
        assert!(scores.backward()?.get(prototypes.weight()).is_some());
        let plain = prototypes.forward(&z, false)?;
        assert_eq!(plain.to_vec2::<f32>()?, rows);
        assert!(!plain.track_op());
        Ok(())
    }

    #[test]
    fn none_at_all_are_refused() {
        let mut store = ParamStore::new(0, &Device::Cpu);
        let error = Prototypes::new(&mut store.scope(Group::Prototypes).pp("prototypes"), 5, 0).unwrap_err();
        assert!(error.to_string().contains("prototypes: 0 prototypes of width 5"), "{error}");
    }
}
