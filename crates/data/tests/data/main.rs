//! The data layer as others use it.

mod decode;
mod folder;
mod formats;
mod loader;
mod shards;
mod stored;
mod stream;
