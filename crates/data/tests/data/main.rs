//! The data layer as others use it.

mod decode;
mod folder;
mod formats;
mod loader;
mod packed;
mod packed_hostile;
mod shards;
mod stored;
mod stream;
