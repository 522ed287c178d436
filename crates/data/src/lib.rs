#![doc = include_str!("../README.md")]

mod binary;
mod cache;
mod dataset;
mod decode;
mod drawn;
mod error;
mod evaluation;
mod failures;
mod find;
mod finish;
mod folder;
mod list;
mod loader;
mod mmap;
mod npy;
mod open;
mod packed;
#[cfg(feature = "parquet")]
mod parquet;
mod pipeline;
#[cfg(feature = "hub")]
mod repository;
mod sampler;
mod shards;
mod source;
mod statistics;
mod stored;
mod subset;
pub mod synthetic;
mod tar;
mod voc;
mod write;

pub use binary::BinaryImages;
pub use cache::Cached;
pub use dataset::{Dataset, Splits, Subset};
pub use decode::{MAX_PIXELS, Reading, decode, decode_file};
pub use drawn::Synthetic;
pub use error::DataError;
pub use evaluation::{EvalBatch, EvalBatches, eval_batches};
pub use failures::{MAX_ERROR_SHARE, Skipped, Unreadable};
pub use finish::{Augmented, Finish, Planned, PlannedBatch, Rows};
pub use folder::ImageFolder;
pub use loader::{Loader, LoaderConfig};
pub use npy::ArrayImages;
pub use open::{Channels, OpenOptions, open};
pub use packed::{PackFormat, PackOptions, PackSummary, PackedImages, pack};
pub use sampler::{Classes, Sampler, Sampling};
pub use shards::{Shards, cache_folder};
pub use statistics::{Channel, Statistics, statistics};
pub use voc::VocImages;
pub use write::{FileFormat, FileLayout, write_folder};
