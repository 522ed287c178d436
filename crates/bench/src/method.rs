//! A method of the registry on one rank, as the timed steps take it.

use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::Device;
use diptych_backbones::{BackboneConfig, ResNet};
use diptych_comm::{Collective, Local};
use diptych_methods::{Build, Method, find};
use diptych_nn::{Backbone, Scope};

/// The method `name` with the settings of `table`, on `backbone` for images of `side` pixels from a data set of `images`.
pub(crate) fn build(
    name: &str,
    table: toml::Table,
    backbone: &BackboneConfig,
    side: usize,
    images: usize,
    device: &Device,
) -> Result<Box<dyn Method>> {
    let entry = find(name).with_context(|| format!("there is no method {name}"))?;
    let architecture = backbone.architecture(side)?;
    let table = (entry.resolve)(table, architecture.out_dim())?;
    let backbone = |scope: &mut Scope| -> candle_core::Result<Box<dyn Backbone>> {
        Ok(Box::new(ResNet::new(scope, &architecture)?))
    };
    let comm: Arc<dyn Collective> = Arc::new(Local);
    let build = Build {
        config: &table,
        backbone: &backbone,
        comm: &comm,
        bn_groups: 1,
        device,
        seed: 0,
        dataset_len: images,
        total_steps: 10,
    };
    Ok((entry.build)(&build)?)
}
