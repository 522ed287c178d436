//! A view of a store for modules of `candle_nn`.

use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Result, Shape, Tensor, Var, bail};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init as CandleInit, VarBuilder};

use crate::{Group, Init, Param, ParamStore, Role};

/// A `VarBuilder` whose variables land in `store` as `role` and `group`, so that a `candle_nn` module can be trained
/// by Diptych's optimizers. Our convolutions do not fit it: their weights are `[O, kh, kw, I]`.
///
/// Initial values follow (seed, name) as everywhere; Candle's own Kaiming hints become [`Init::UniformFanIn`].
pub fn var_builder(store: Arc<Mutex<ParamStore>>, role: Role, group: Group) -> VarBuilder<'static> {
    let device = match store.lock() {
        Ok(store) => store.device().clone(),
        Err(poisoned) => poisoned.into_inner().device().clone(),
    };
    VarBuilder::from_backend(Box::new(View { store, role, group }), DType::F32, device)
}

struct View {
    store: Arc<Mutex<ParamStore>>,
    role: Role,
    group: Group,
}

impl SimpleBackend for View {
    fn get(&self, shape: Shape, name: &str, hint: CandleInit, _: DType, _: &Device) -> Result<Tensor> {
        let Ok(mut store) = self.store.lock() else { bail!("the parameter store was left locked by a panic") };
        if let Some(param) = store.get(name) {
            if param.var.shape() != &shape {
                bail!("{name} has shape {:?}, the module asks for {shape:?}", param.var.shape())
            }
            return Ok(param.var.as_tensor().clone());
        }
        let init = match hint {
            CandleInit::Const(value) => Init::Constant(value),
            CandleInit::Randn { stdev, .. } => Init::Normal(stdev),
            CandleInit::Uniform { up, .. } => Init::Uniform(up),
            CandleInit::Kaiming { .. } => Init::UniformFanIn,
        };
        let value = init.draw(shape.dims(), store.seed(), name, &store.device().clone())?;
        let var = Var::from_tensor(&value)?;
        store.insert(name, Param { role: self.role, group: self.group, var: var.clone() })?;
        Ok(var.as_tensor().clone())
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        match self.store.lock() {
            Ok(store) => match store.get(name) {
                Some(param) => Ok(param.var.as_tensor().clone()),
                None => bail!("{name} is not in the store, and its shape is not known"),
            },
            Err(_) => bail!("the parameter store was left locked by a panic"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.store.lock().is_ok_and(|store| store.get(name).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_nn::Module;

    #[test]
    fn a_candle_module_trains_what_the_store_holds() -> Result<()> {
        let store = Arc::new(Mutex::new(ParamStore::new(1, &Device::Cpu)));
        let view = var_builder(store.clone(), Role::Weight, Group::Predictor);
        let layer = candle_nn::linear_no_bias(3, 2, view.pp("fc"))?;
        let y = layer.forward(&Tensor::ones((4, 3), DType::F32, &Device::Cpu)?)?.sum_all()?;
        let store = store.lock().unwrap();
        let param = store.get("fc.weight").unwrap();
        assert_eq!(param.group, Group::Predictor);
        let gradient = y.backward()?.get(&param.var).unwrap().to_vec2::<f32>()?;
        assert_eq!(gradient, vec![vec![4.0; 3]; 2]);
        Ok(())
    }
}
