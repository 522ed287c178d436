//! What a suite is made of: cases, which say what they are, and runners, which hold the tensors.

use std::collections::BTreeMap;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use crate::bars::Bar;

/// Tensors by name, as they are exchanged with the peer.
pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// How large cases are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    /// For a CPU with a few cores.
    Cpu,
    /// For a GPU: batches of real training runs.
    Gpu,
    /// For trying every case where time does not count, such as on an emulator. Its numbers mean nothing.
    Tiny,
}

/// What values are made of, and how exactly they are multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Precision {
    /// f32, with products of f32 numbers.
    #[default]
    F32,
    /// f32, whose products may round their factors to TF32 (10 bits of mantissa); only on GPUs.
    Tf32,
    /// bf16 activations, summed in f32.
    Bf16,
}

impl Precision {
    /// Those that a scale's cases come in.
    pub(crate) fn of(scale: Scale) -> &'static [Self] {
        match scale {
            Scale::Cpu => &[Self::F32, Self::Bf16],
            Scale::Gpu | Scale::Tiny => &[Self::F32, Self::Tf32, Self::Bf16],
        }
    }

    /// The word for it in names, table and JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }

    /// The type of activations.
    pub(crate) fn dtype(self) -> DType {
        if self == Self::Bf16 { DType::BF16 } else { DType::F32 }
    }

    /// Bytes of an activation.
    pub(crate) fn size(self) -> f64 {
        self.dtype().size_in_bytes() as f64
    }
}

/// How a case's time is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unit {
    /// Milliseconds a run: less is better.
    Milliseconds,
    /// Images a second, for so many images a run: more is better.
    ImagesPerSecond(usize),
    /// Views a second, for so many views a run: more is better.
    ViewsPerSecond(usize),
}

impl Unit {
    /// The word for it in table and JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::ImagesPerSecond(_) => "images/s",
            Self::ViewsPerSecond(_) => "views/s",
        }
    }

    /// The number for a run of `seconds`.
    pub(crate) fn value(self, seconds: f64) -> f64 {
        match self {
            Self::Milliseconds => seconds * 1e3,
            Self::ImagesPerSecond(count) | Self::ViewsPerSecond(count) => count as f64 / seconds,
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
    /// For one operation: f32 differs by the order of its sums, TF32 by the rounding of factors to 11 bits, bf16 by that of everything to 8 bits.
    pub(crate) fn of(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self { norm: 1e-4, largest: 1e-3 },
            Precision::Tf32 => Self { norm: 2e-3, largest: 8e-3 },
            Precision::Bf16 => Self { norm: 1e-2, largest: 4e-2 },
        }
    }
}

/// How peak memory is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Memory {
    /// Live bytes of the tensor library's allocator above what lived before the run.
    Live,
    /// The resident set of a process that does nothing else, above what it is after loading the libraries. On a GPU as [`Self::Live`].
    Resident,
    /// As [`Self::Live`], of ours alone: the peer's is in processes and libraries that keep no count.
    Ours,
    /// What a process of ours that does nothing else holds that is no file (`RssAnon`), at most, above what it held before the files were opened.
    Anonymous,
}

impl Memory {
    /// The word for it in the JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Live | Self::Ours => "live",
            Self::Resident => "resident",
            Self::Anonymous => "anonymous",
        }
    }
}

/// How the names of our own runners begin that are timed beside ours, as bars know them.
pub(crate) const OWN: &str = "ours_";

/// A runner with a name that begins with [`OWN`].
pub(crate) type Named = (&'static str, Box<dyn Runner>);

/// One row to be: plain data, so that a list of hundreds costs nothing.
pub(crate) trait Case {
    /// Named after what it times, such as `conv_resnet50_...`.
    fn name(&self) -> String;
    /// Cases of one group share a geometric mean; a case may be in several.
    fn groups(&self) -> Vec<String>;
    /// What its activations are, and how they are multiplied.
    fn precision(&self) -> Precision {
        Precision::F32
    }
    /// How its time is told.
    fn unit(&self) -> Unit {
        Unit::Milliseconds
    }
    /// How far ours and the peer's outputs may be apart.
    fn tolerance(&self) -> Tolerance {
        Tolerance::of(self.precision())
    }
    /// For outputs that are pictures of u8: how near they must be to a variant's, as the ratio of the largest value's power to that of their
    /// difference, in dB. It takes the place of [`Self::tolerance`].
    fn decibels(&self, variant: &str) -> Option<f64> {
        let _ = variant;
        None
    }
    /// Others of ours that take turns with it, after their outputs were compared too.
    ///
    /// # Errors
    /// If one cannot be made.
    fn rivals(&self, device: &Device) -> Result<Vec<Named>> {
        let _ = device;
        Ok(Vec::new())
    }
    /// How its peak memory is measured; [`Memory::Resident`] gives each variant of the peer a process of its own.
    fn memory(&self) -> Memory {
        Memory::Live
    }
    /// What the peer has to know, beside the inputs: `kind` names its implementation. Asked for after [`Self::build`].
    fn spec(&self) -> Value;
    /// What the peer tries; nothing where ours is timed without one.
    fn variants(&self) -> Vec<&'static str>;
    /// The floor.
    fn work(&self) -> Work;
    /// What it should reach.
    fn bars(&self) -> Vec<Bar> {
        Vec::new()
    }
    /// Makes the tensors.
    fn build(&self, device: &Device) -> Result<Box<dyn Runner>>;
}

/// A case with its tensors.
pub(crate) trait Runner {
    /// What the peer gets, so that both compute the same.
    fn inputs(&self) -> Result<Tensors>;
    /// Runs once (or as often as a comparison needs) and gives what the peer's must equal.
    fn outputs(&mut self) -> Result<Tensors>;
    /// Makes ready what so many runs use up (buffers that they write over); called before them, and not timed.
    fn reset(&mut self, runs: usize) -> Result<()> {
        let _ = runs;
        Ok(())
    }
    /// How many runs memory allows to make ready at once.
    fn at_once(&self) -> usize {
        usize::MAX
    }
    /// What is timed.
    fn run(&mut self) -> Result<()>;
}
