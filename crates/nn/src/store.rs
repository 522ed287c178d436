//! The parameters of a model, ordered by name.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::{Group, NormGroups, Param, Role, Scope};

/// How convolution weights lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[O, kh, kw, I]`, as in memory here; `layout=ohwi` in a checkpoint's metadata.
    Ohwi,
    /// `[O, I, kh, kw]`, as everywhere else.
    Oihw,
}

/// Parameters by path, in the order of their names, each with role and group.
#[derive(Clone, Debug)]
pub struct ParamStore {
    params: BTreeMap<String, Param>,
    seed: u64,
    device: Device,
    norm_groups: NormGroups,
}

impl ParamStore {
    /// An empty store whose parameters will be drawn from `seed` onto `device`.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self { params: BTreeMap::new(), seed, device: device.clone(), norm_groups: NormGroups::default() }
    }

    /// The same store, whose batch norms (those made from now on) take their statistics from these groups of rows.
    pub fn with_norm_groups(mut self, groups: NormGroups) -> Self {
        self.norm_groups = groups;
        self
    }

    /// Which rows share the statistics of a batch norm.
    pub fn norm_groups(&self) -> &NormGroups {
        &self.norm_groups
    }

    /// The root scope, for parameters of `group`.
    pub fn scope(&mut self, group: Group) -> Scope<'_> {
        Scope::new(self, group)
    }

    /// The seed of initial values.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Where the parameters live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The parameter of this path.
    pub fn get(&self, name: &str) -> Option<&Param> {
        self.params.get(name)
    }

    /// Adds a parameter.
    ///
    /// # Errors
    /// If there is one of this name.
    pub fn insert(&mut self, name: &str, param: Param) -> Result<()> {
        if self.params.contains_key(name) {
            bail!("parameter {name} is defined twice")
        }
        self.params.insert(name.to_string(), param);
        Ok(())
    }

    /// All parameters in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Param)> {
        self.params.iter().map(|(name, param)| (name.as_str(), param))
    }

    /// What an optimizer may change, in name order.
    pub fn trainable(&self) -> impl Iterator<Item = (&str, &Param)> {
        self.iter().filter(|(_, param)| param.is_trainable())
    }

    /// The parameters below `prefix`, without it. They share their storage with this store's.
    pub fn below(&self, prefix: &str) -> Self {
        let params = self
            .params
            .iter()
            .filter_map(|(name, param)| Some((name.strip_prefix(prefix)?.to_string(), param.clone())))
            .collect();
        Self { params, seed: self.seed, device: self.device.clone(), norm_groups: self.norm_groups.clone() }
    }

    /// How many tensors it holds.
    pub fn len(&self) -> usize {
        self.params.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// How many single values the trainable parameters hold.
    pub fn trainable_values(&self) -> usize {
        self.trainable().map(|(_, param)| param.var.elem_count()).sum()
    }

    /// The values in name order, with convolution weights in `layout`. They share no storage with the store.
    ///
    /// # Errors
    /// If the device cannot copy.
    pub fn tensors(&self, layout: Layout) -> Result<BTreeMap<String, Tensor>> {
        self.iter()
            .map(|(name, param)| {
                let value = param.var.as_detached_tensor();
                let value = match layout {
                    // Always a copy: a 1x1 kernel is contiguous in both layouts.
                    Layout::Oihw if is_convolution(param) => value.permute((0, 3, 1, 2))?.force_contiguous()?,
                    _ => value.copy()?,
                };
                Ok((name.to_string(), value))
            })
            .collect()
    }

    /// Overwrites every parameter with the tensor of the same name.
    ///
    /// # Errors
    /// If one is missing, of another shape, or unknown; the message names the key and both shapes.
    pub fn load(&self, tensors: &HashMap<String, Tensor>, layout: Layout) -> Result<()> {
        for (name, param) in self.iter() {
            let Some(value) = tensors.get(name) else { bail!("{name} is missing") };
            self.load_one(name, param, value, layout)?;
        }
        match tensors.keys().filter(|name| self.get(name).is_none()).min() {
            Some(name) => bail!("{name} is not a parameter of this model"),
            None => Ok(()),
        }
    }

    /// Overwrites the parameter `name`, whose convolution weights come in `layout`.
    ///
    /// # Errors
    /// If the store has no such parameter, or one of another shape.
    pub fn load_tensor(&self, name: &str, value: &Tensor, layout: Layout) -> Result<()> {
        match self.get(name) {
            Some(param) => self.load_one(name, param, value, layout),
            None => bail!("{name} is not a parameter of this model"),
        }
    }

    fn load_one(&self, name: &str, param: &Param, value: &Tensor, layout: Layout) -> Result<()> {
        let convert = layout == Layout::Oihw && is_convolution(param);
        let expected = match param.var.dims() {
            &[o, kh, kw, i] if convert => vec![o, i, kh, kw],
            dims => dims.to_vec(),
        };
        if value.dims() != expected {
            bail!("{name} has shape {:?}, the model expects {expected:?}", value.dims())
        }
        let value = value.to_dtype(param.var.dtype())?.to_device(param.var.device())?;
        let value = if convert { value.permute((0, 2, 3, 1))?.contiguous()? } else { value.copy()? };
        param.var.set(&value)
    }
}

fn is_convolution(param: &Param) -> bool {
    param.role == Role::Weight && param.var.rank() == 4 && param.var.dtype() != DType::U8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Conv2d, Init};

    fn store() -> Result<ParamStore> {
        let mut store = ParamStore::new(7, &Device::Cpu);
        Conv2d::new(&mut store.scope(Group::Trunk).pp("conv"), 2, 4, 3, 1, 1)?;
        store.scope(Group::Projector).pp("a").get("bias", &[5], Role::Bias, Init::Constant(1.0))?;
        Ok(store)
    }

    #[test]
    fn both_layouts_come_back_as_they_were() -> Result<()> {
        for layout in [Layout::Ohwi, Layout::Oihw] {
            let store = store()?;
            let saved: HashMap<_, _> = store.tensors(layout)?.into_iter().collect();
            let before = store.get("conv.weight").unwrap().var.flatten_all()?.to_vec1::<f32>()?;
            let mut other = ParamStore::new(8, &Device::Cpu);
            Conv2d::new(&mut other.scope(Group::Trunk).pp("conv"), 2, 4, 3, 1, 1)?;
            other.scope(Group::Projector).pp("a").get("bias", &[5], Role::Bias, Init::Constant(0.0))?;
            other.load(&saved, layout)?;
            assert_eq!(other.get("conv.weight").unwrap().var.flatten_all()?.to_vec1::<f32>()?, before);
        }
        Ok(())
    }

    /// Also a 1x1 kernel, which lies the same way in both layouts: steps that follow must not change what was taken before.
    #[test]
    fn taken_values_share_nothing_with_the_store() -> Result<()> {
        let mut store = ParamStore::new(7, &Device::Cpu);
        Conv2d::new(&mut store.scope(Group::Trunk).pp("conv"), 2, 4, 1, 1, 0)?;
        let var = &store.get("conv.weight").unwrap().var;
        for layout in [Layout::Ohwi, Layout::Oihw] {
            let taken = store.tensors(layout)?["conv.weight"].clone();
            let before = taken.flatten_all()?.to_vec1::<f32>()?;
            diptych_kernels::optimizer::ema_steps(&[("conv.weight", var, &var.zeros_like()?)], 0.5)?;
            assert_eq!(taken.flatten_all()?.to_vec1::<f32>()?, before);
        }
        Ok(())
    }

    #[test]
    fn a_wrong_file_is_told_by_key_and_shapes() -> Result<()> {
        let store = store()?;
        let mut saved: HashMap<_, _> = store.tensors(Layout::Oihw)?.into_iter().collect();
        let shape = store.load(&saved, Layout::Ohwi).unwrap_err().to_string();
        assert!(shape.contains("conv.weight has shape [4, 2, 3, 3], the model expects [4, 3, 3, 2]"), "{shape}");
        saved.insert("extra".into(), Tensor::zeros(1, DType::F32, &Device::Cpu)?);
        assert!(store.load(&saved, Layout::Oihw).unwrap_err().to_string().contains("extra is not a parameter"));
        saved.remove("a.bias");
        assert!(store.load(&saved, Layout::Oihw).unwrap_err().to_string().contains("a.bias is missing"));
        Ok(())
    }

    #[test]
    fn names_are_unique() -> Result<()> {
        let mut store = store()?;
        let again = store.scope(Group::Trunk).pp("a").get("bias", &[5], Role::Bias, Init::Constant(1.0));
        assert!(again.unwrap_err().to_string().contains("a.bias is defined twice"));
        Ok(())
    }
}
