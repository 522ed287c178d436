//! The operations of a ResNet's training step, alone.

mod batch_norm;
mod conv;
mod linear;
mod pool;

use candle_core::DType;

use crate::case::Case;

/// Both types of activations.
const DTYPES: [DType; 2] = [DType::F32, DType::BF16];

pub(super) fn cases() -> Vec<Box<dyn Case>> {
    [conv::cases(), batch_norm::cases(), pool::cases(), linear::cases()].into_iter().flatten().collect()
}

/// The end of a case's name.
fn name(dtype: DType) -> &'static str {
    if dtype == DType::BF16 { "bf16" } else { "f32" }
}

/// Bytes of a value.
fn size(dtype: DType) -> f64 {
    dtype.size_in_bytes() as f64
}

/// The layouts that PyTorch's image operations know.
fn layouts() -> Vec<&'static str> {
    vec!["channels_last", "contiguous"]
}
