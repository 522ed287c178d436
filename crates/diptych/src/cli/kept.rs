//! The flags of kept features, and how they are told.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use diptych::data::Dataset;
use diptych::eval::{Cache, Embedder, Features, Transform, features};
use diptych::nn::Backbone;
use diptych::trainer::machine::count;
use diptych::weights::Weights;

use super::say;

/// Where features are kept.
#[derive(Debug, clap::Args)]
pub(super) struct CacheArgs {
    /// Keep features in this folder, and take them from there when weights, images and preparation are the same.
    /// [default: features/ in DIPTYCH_CACHE, or in diptych/ of the user's cache folder]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Compute features anew, and keep none.
    #[arg(long, conflicts_with = "cache")]
    no_cache: bool,
}

impl CacheArgs {
    /// The features of `dataset`: kept ones where there are any. Says when they come from the cache, or cannot be kept.
    pub(super) fn features(
        &self,
        weights: &Weights,
        dataset: &Arc<dyn Dataset>,
        transform: &Transform,
    ) -> Result<Features> {
        let backbone: &dyn Backbone = weights.backbone.as_ref();
        let cache = match &self.cache {
            _ if self.no_cache => None,
            Some(folder) => Some(Cache::new(folder)),
            None => Cache::of_user(),
        };
        let Some(cache) = cache else { return features(backbone, dataset, transform) };
        let architecture = format!("{:?}", weights.architecture);
        let network = Embedder { backbone, params: &weights.params, architecture: &architecture };
        let kept = cache.features(network, dataset, transform)?;
        if kept.hit {
            let n = count(kept.features.indices.len());
            say(format!("features of {n} images from the cache in {}", cache.folder().display()));
        }
        if let Some(problem) = &kept.problem {
            say(format!("note: {problem}; give --cache DIR, or --no-cache"));
        }
        Ok(kept.features)
    }
}
