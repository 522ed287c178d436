//! The list of methods.

use candle_core::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{
    Build, Method, adco, barlow_twins, byol, contrastive_clustering, deepcluster, moco, simclr, simsiam, swav,
};

/// One method of the registry.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name in recipes.
    pub name: &'static str,
    /// Title, authors, year, arXiv number.
    pub paper: &'static str,
    /// How many views of an image it takes at least; more, or smaller ones behind them, are compared with the first.
    pub views: usize,
    /// The published groups of a batch with statistics of their own: what a recipe's `trainer.bn_groups` leaves out.
    pub bn_groups: usize,
    /// The published views for images of this side: what a recipe's `[augment]` leaves out.
    pub augment: fn(usize) -> diptych_augment::Recipe,
    /// The published optimizer: what a recipe's `[optim]` leaves out, as TOML.
    pub optim: &'static str,
    /// Checks the recipe's `[method]` table for a backbone of F features and fills in what it leaves out.
    pub resolve: fn(toml::Table, usize) -> Result<toml::Table>,
    /// Builds the method from a resolved table.
    pub build: fn(&Build) -> Result<Box<dyn Method>>,
}

/// The method of this name.
pub fn find(name: &str) -> Option<&'static Entry> {
    REGISTRY.iter().find(|entry| entry.name == name)
}

/// Makes [`REGISTRY`] from the methods' modules; each has PAPER, VIEWS, BN_GROUPS, AUGMENT, OPTIM, a `Config` and a type.
macro_rules! methods {
    ($($module:ident :: $type:ident),* $(,)?) => {
        /// Every method.
        pub const REGISTRY: &[Entry] = &[$(Entry {
            name: stringify!($module),
            paper: $module::PAPER,
            views: $module::VIEWS,
            bn_groups: $module::BN_GROUPS,
            augment: $module::AUGMENT,
            optim: $module::OPTIM,
            resolve: |table, features| {
                let config: $module::Config = read(table)?;
                write(&config.resolve(features)?)
            },
            build: |build| Ok(Box::new($module::$type::new(read(build.config.clone())?, build)?)),
        }),*];
    };
}

methods! {
    simclr::SimClr,
    moco::Moco,
    byol::Byol,
    simsiam::SimSiam,
    barlow_twins::BarlowTwins,
    swav::Swav,
    deepcluster::DeepCluster,
    adco::AdCo,
    contrastive_clustering::ContrastiveClustering,
}

fn read<C: DeserializeOwned>(table: toml::Table) -> Result<C> {
    table.try_into().map_err(|error: toml::de::Error| Error::Msg(error.to_string().trim().to_string()))
}

fn write<C: Serialize>(config: &C) -> Result<toml::Table> {
    toml::Table::try_from(config).map_err(|error| Error::Msg(error.to_string()))
}

/// Checks the widths of a projector.
pub(crate) fn check_projector(widths: &[usize]) -> Result<()> {
    match widths {
        [] => candle_core::bail!("projector must name at least one width, such as [512, 128]"),
        widths if widths.contains(&0) => {
            candle_core::bail!("projector = {widths:?} has a layer of width 0; every width must be at least 1")
        }
        _ => Ok(()),
    }
}

/// Checks a number that is a share, such as the decay of a moving average.
pub(crate) fn check_share(key: &str, value: f64) -> Result<()> {
    if !(0.0..=1.0).contains(&value) {
        candle_core::bail!("{key} must be from 0 to 1, it is {value}")
    }
    Ok(())
}

/// Checks a temperature.
pub(crate) fn check_positive(key: &str, value: f64) -> Result<()> {
    if !(value > 0.0 && value.is_finite()) {
        candle_core::bail!("{key} must be positive, it is {value}")
    }
    Ok(())
}
