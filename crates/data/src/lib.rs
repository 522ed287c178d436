//! Image data sets, a drawn one among them, and a deterministic, prefetching loader.
//!
//! [`open`] turns what a user gives as data (a folder, a file, a name) into [`Splits`]; a [`Dataset`] hands out single
//! decoded images; a [`Loader`] makes batches of random views of them.

mod binary;
mod cache;
mod dataset;
mod decode;
mod drawn;
mod error;
mod evaluation;
mod failures;
mod folder;
mod list;
mod loader;
mod open;
mod pipeline;
mod sampler;
pub mod synthetic;

pub use binary::BinaryImages;
pub use cache::Cached;
pub use dataset::{Dataset, Splits, Subset};
pub use decode::{MAX_PIXELS, decode, decode_file};
pub use drawn::Synthetic;
pub use error::DataError;
pub use evaluation::{EvalBatch, EvalBatches, eval_batches};
pub use failures::{MAX_ERROR_SHARE, Skipped};
pub use folder::ImageFolder;
pub use loader::{Loader, LoaderConfig};
pub use open::{OpenOptions, open};
pub use sampler::Sampler;
