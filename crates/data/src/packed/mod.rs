//! Packed files: the images of a data set in one file, decoded or encoded at the size at which they are trained, read as memory.
//!
//! A folder of photographs is decoded at full size for every view of every epoch. [`pack`] does the largest part of that once. What it makes is
//! opened like any other data: it has the splits, labels, class names and notes of its source, and the hold-outs and subsets chosen of it are
//! the source's. The layout of the file is described in `layout.rs`; every part of it has a checksum, those of the images are compared
//! whenever an image is read.

mod about;
mod encode;
mod file;
mod layout;
mod make;
mod read;

pub use make::{PackOptions, PackSummary, pack};
pub use read::PackedImages;
pub(crate) use read::open;

/// How a packed file holds its images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PackFormat {
    /// The numbers themselves: the fastest to read, `width * height * channels` bytes an image (twice or four times that at 16 bits and f32).
    Raw,
    /// JPEG with halved color resolution (4:2:0), for 8-bit RGB: the smallest. The pixels change a little.
    #[default]
    Jpeg,
    /// PNG, for 1 to 4 channels of 8 or 16 bits: the same pixels as raw in fewer bytes, slow to read.
    Png,
}
