//! Values against independent references; each module names the script in `tests/fixtures` that made its numbers.

mod augment;
mod augment_draws;
mod augment_laws;
mod augment_quality;
mod augment_scene;
mod backbones;
mod evaluation;
mod finetune;
mod heads;
mod losses;
mod methods;
mod metrics;
mod neighbors;
mod ops;
mod optim;
mod place;
mod probe;
mod weights;
