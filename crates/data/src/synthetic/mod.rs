//! The embedded data set: ten classes of pictures that are drawn, not stored.
//!
//! The class of a picture is the shape of the things in it. Their number, places, sizes, angles and colors, the
//! background, the light, the blur and the noise are chance and tell nothing about the class, so that colors and pixels
//! alone do not separate the classes, and a representation that does has learned form.
//!
//! A picture is a function of (seed, split, index, size): any number of them, in any order, without a file. The two
//! splits use different streams and share no picture. Only operations that IEEE 754 fixes to the last bit are used, so
//! that the bytes are the same on every machine.

mod canvas;
mod scene;
mod shape;

use diptych_augment::Image;
use diptych_random::Stream;

use shape::Shape;

/// The names of the classes, in the order of the labels.
pub const CLASSES: [&str; 10] = {
    let mut names = [""; 10];
    let mut i = 0;
    while i < 10 {
        names[i] = Shape::ALL[i].name();
        i += 1;
    }
    names
};

/// The two splits: they are drawn from different streams and share no picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// For training.
    Train,
    /// For testing.
    Test,
}

impl Split {
    /// `train` or `test`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

/// Picture `index` of a split, `[size, size, 3]`, and its label, an index into [`CLASSES`].
///
/// Every ten successive indices hold each class once, in an order that the seed decides. Sizes of 32 to 96 are meant;
/// below about 24 pixels the classes become hard to tell apart, and 0 is taken as 1.
pub fn draw(seed: u64, split: Split, index: u64, size: usize) -> (Image, u32) {
    let label = label(seed, split, index);
    let mut stream = Stream::keyed(seed, &[split as u64, index]);
    (scene::draw(Shape::ALL[label as usize], size.max(1), &mut stream), label)
}

/// The label of picture `index`: without drawing it.
pub fn label(seed: u64, split: Split, index: u64) -> u32 {
    const ORDER: u64 = 2;
    let mut order: [u32; 10] = std::array::from_fn(|i| i as u32);
    Stream::keyed(seed, &[ORDER, split as u64, index / 10]).shuffle(&mut order);
    order[(index % 10) as usize]
}

#[cfg(test)]
mod tests;
