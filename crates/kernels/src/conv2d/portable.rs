//! The inner loops for any machine: patches gathered into a cache-sized panel, then `gemm`.

use std::cell::RefCell;
use std::ops::Range;

use super::direct::Rows;
use super::geometry::{Phase, Source};
use super::pack::{BLOCK, Packed};
use crate::matmul::{View, matmul};

thread_local! {
    /// A thread's panel of patches and its block of results, kept from tile to tile.
    static SCRATCH: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// The patches of `pixels`, `[pixels, taps, inputs]`, zero where they reach over the border.
fn panel<'a>(
    buffer: &'a mut Vec<f32>,
    source: Source,
    inputs: usize,
    phase: &Phase,
    pixels: Range<usize>,
) -> &'a [f32] {
    buffer.clear();
    for pixel in pixels {
        let (image, pixel) = (pixel / phase.pixels, pixel % phase.pixels);
        let image = &source.data[image * source.rows * source.width..][..source.rows * source.width];
        for row in phase.source.iter().skip(pixel).step_by(phase.pixels) {
            match usize::try_from(*row) {
                Ok(row) => buffer.extend_from_slice(&image[row * source.width..][..inputs]),
                Err(_) => buffer.resize(buffer.len() + inputs, 0.0),
            }
        }
    }
    buffer
}

/// The output rows of `pixels`, of these blocks of channels, plus the same rows of `add`.
#[allow(clippy::too_many_arguments)]
pub(super) fn tile(
    source: Source,
    phase: &Phase,
    identity: bool,
    weights: &Packed,
    add: Option<&[f32]>,
    out: Rows,
    out_rows: usize,
    pixels: Range<usize>,
    blocks: Range<usize>,
) {
    let (count, inner) = (pixels.len(), weights.taps * weights.inputs);
    SCRATCH.with_borrow_mut(|(patches, result)| {
        let patches = match identity {
            true => &source.data[pixels.start * inner..pixels.end * inner],
            false => panel(patches, source, weights.inputs, phase, pixels.clone()),
        };
        let (first, width) = (blocks.start * BLOCK, blocks.clone().map(|block| weights.used(block)).sum::<usize>());
        result.resize(count * width, 0.0);
        for block in blocks {
            let (used, from) = (weights.used(block), block * BLOCK - first);
            let (a, b) = (View::rows(patches, inner), View::rows(weights.block(block), used));
            matmul(&mut result[from..], width, false, 1.0, a, b, [count, used, inner]);
        }
        for (pixel, row) in pixels.zip(result.chunks_exact_mut(width)) {
            let at = pixel / phase.pixels * out_rows + phase.out[pixel % phase.pixels] as usize;
            if let Some(add) = add {
                row.iter_mut().zip(&add[at * weights.outputs + first..]).for_each(|(v, a)| *v += a);
            }
            // SAFETY: the row has `outputs` values, of which only this task writes those of its blocks, in another allocation.
            unsafe { out.row(at).add(first).copy_from_nonoverlapping(row.as_ptr(), width) };
        }
    });
}
