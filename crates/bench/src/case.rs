//! What a suite is made of: cases, which say what they are, and runners, which hold the tensors.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use serde_json::Value;

/// Tensors by name, as they are exchanged with the peer.
pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// How a case's time is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unit {
    /// Milliseconds a run: less is better.
    Milliseconds,
    /// Images a second, for so many images a run: more is better.
    ImagesPerSecond(usize),
}

impl Unit {
    /// The word for it in table and JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::ImagesPerSecond(_) => "images/s",
        }
    }

    /// The number for a run of `seconds`.
    pub(crate) fn value(self, seconds: f64) -> f64 {
        match self {
            Self::Milliseconds => seconds * 1e3,
            Self::ImagesPerSecond(images) => images as f64 / seconds,
        }
    }
}

/// The least that any program must do for a case.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Work {
    /// Floating-point operations in products; a multiply-add counts as two.
    pub(crate) flops: f64,
    /// Bytes read and written when every tensor is touched as seldom as possible.
    pub(crate) bytes: f64,
}

/// How far two implementations may be apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tolerance {
    /// The norm of the difference by the norm of the peer's tensor.
    pub(crate) norm: f64,
    /// The largest difference by the largest value of the peer's tensor.
    pub(crate) largest: f64,
}

impl Tolerance {
    /// For one operation: f32 differs by the order of its sums, bf16 by the rounding of its 8 bits.
    pub(crate) fn of(dtype: DType) -> Self {
        match dtype {
            DType::BF16 => Self { norm: 1e-2, largest: 4e-2 },
            _ => Self { norm: 1e-4, largest: 1e-3 },
        }
    }
}

/// How peak memory is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Memory {
    /// Live bytes of the tensor library's allocator above what lived before the run.
    Live,
    /// The resident set of a process that does nothing else, above what it is after loading the libraries.
    Resident,
}

/// One row to be: plain data, so that a list of hundreds costs nothing.
pub(crate) trait Case {
    /// Named after what it times, such as `conv_resnet50_...`.
    fn name(&self) -> String;
    /// Cases of one group share a geometric mean; a case may be in several.
    fn groups(&self) -> Vec<String>;
    /// The type of its activations.
    fn dtype(&self) -> DType {
        DType::F32
    }
    /// How its time is told.
    fn unit(&self) -> Unit {
        Unit::Milliseconds
    }
    /// How far ours and the peer's outputs may be apart.
    fn tolerance(&self) -> Tolerance {
        Tolerance::of(self.dtype())
    }
    /// How its peak memory is measured; [`Memory::Resident`] gives each variant of the peer a process of its own.
    fn memory(&self) -> Memory {
        Memory::Live
    }
    /// What the peer has to know, beside the inputs: `kind` names its implementation.
    fn spec(&self) -> Value;
    /// What the peer tries.
    fn variants(&self) -> Vec<&'static str>;
    /// The floor.
    fn work(&self) -> Work;
    /// Makes the tensors.
    fn build(&self, device: &Device) -> Result<Box<dyn Runner>>;
}

/// A case with its tensors.
pub(crate) trait Runner {
    /// What the peer gets, so that both compute the same.
    fn inputs(&self) -> Result<Tensors>;
    /// Runs once (or as often as a comparison needs) and gives what the peer's must equal.
    fn outputs(&mut self) -> Result<Tensors>;
    /// Makes ready what a run uses up (buffers that it writes over); called before every run, and not timed.
    fn reset(&mut self) -> Result<()> {
        Ok(())
    }
    /// What is timed.
    fn run(&mut self) -> Result<()>;
}
