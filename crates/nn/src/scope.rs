//! A place in a parameter store, where a layer asks for what it needs.

use candle_core::{Result, Var};

use crate::{Group, Init, NormGroups, Param, ParamStore, Role};

/// A path prefix and a group within a [`ParamStore`].
#[derive(Debug)]
pub struct Scope<'a> {
    store: &'a mut ParamStore,
    path: String,
    group: Group,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(store: &'a mut ParamStore, group: Group) -> Self {
        Self { store, path: String::new(), group }
    }

    /// The scope one level down: `scope.pp("layer1").pp(0)` is `layer1.0`.
    pub fn pp(&mut self, name: impl std::fmt::Display) -> Scope<'_> {
        let path = self.join(&name.to_string());
        Scope { store: self.store, path, group: self.group }
    }

    /// The same place, asking for another group.
    pub fn group(&mut self, group: Group) -> Scope<'_> {
        Scope { store: self.store, path: self.path.clone(), group }
    }

    /// This place's path, such as `layer1.0`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Which rows share the statistics of a batch norm that is made here.
    pub fn norm_groups(&self) -> &NormGroups {
        self.store.norm_groups()
    }

    /// Creates the parameter `name` here.
    ///
    /// # Errors
    /// If the store holds a parameter of that path already.
    pub fn get(&mut self, name: &str, shape: &[usize], role: Role, init: Init) -> Result<Var> {
        let path = self.join(name);
        let value = init.draw(shape, self.store.seed(), &path, self.store.device())?;
        let var = Var::from_tensor(&value)?;
        self.store.insert(&path, Param { role, group: self.group, var: var.clone() })?;
        Ok(var)
    }

    fn join(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }
}
