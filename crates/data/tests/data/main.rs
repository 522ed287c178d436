//! The data layer as others use it.

mod decode;
mod folder;
mod formats;
mod loader;
mod stored;
mod stream;
