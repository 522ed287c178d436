//! Image data sets, a drawn one among them, and a deterministic, prefetching loader.
//!
//! [`open`] turns what a user gives as data (a folder, a file, a name) into [`Splits`]; a [`Dataset`] hands out single
//! decoded images.

mod dataset;
mod error;
mod open;

pub use dataset::{Dataset, Splits, Subset};
pub use error::DataError;
pub use open::{OpenOptions, open};
