//! The inner loops for any machine: patches gathered into a cache-sized panel, then `gemm`.

use std::cell::RefCell;
use std::ops::Range;

use super::cpu::{BLOCK, GRAD_TILE, Geometry, Packed, Phase, Rows};
use crate::matmul::{View, matmul};

thread_local! {
    /// A thread's panel of patches and its block of results, kept from tile to tile.
    static SCRATCH: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// The patches of `pixels`, `[pixels, taps, width]`, zero where they reach over the border.
fn panel<'a>(
    buffer: &'a mut Vec<f32>,
    source: &[f32],
    source_rows: usize,
    width: usize,
    phase: &Phase,
    pixels: Range<usize>,
) -> &'a [f32] {
    buffer.clear();
    for pixel in pixels {
        let (image, pixel) = (pixel / phase.pixels, pixel % phase.pixels);
        let image = &source[image * source_rows * width..][..source_rows * width];
        for row in phase.source.iter().skip(pixel).step_by(phase.pixels) {
            match usize::try_from(*row) {
                Ok(row) => buffer.extend_from_slice(&image[row * width..][..width]),
                Err(_) => buffer.resize(buffer.len() + width, 0.0),
            }
        }
    }
    buffer
}

/// The output rows of `pixels`, plus the same rows of `add`.
#[allow(clippy::too_many_arguments)]
pub(super) fn tile(
    source: &[f32],
    source_rows: usize,
    phase: &Phase,
    identity: bool,
    weights: &Packed,
    add: Option<&[f32]>,
    out: Rows,
    out_rows: usize,
    pixels: Range<usize>,
) {
    let (count, inner) = (pixels.len(), weights.taps * weights.inputs);
    SCRATCH.with_borrow_mut(|(patches, result)| {
        let patches = match identity {
            true => &source[pixels.start * inner..pixels.end * inner],
            false => panel(patches, source, source_rows, weights.inputs, phase, pixels.clone()),
        };
        result.resize(count * weights.outputs, 0.0);
        for block in 0..weights.blocks() {
            let (used, from) = (weights.used(block), block * BLOCK);
            let (a, b) = (View::rows(patches, inner), View::rows(weights.block(block), used));
            matmul(&mut result[from..], weights.outputs, false, 1.0, a, b, [count, used, inner]);
        }
        for (pixel, row) in pixels.zip(result.chunks_exact_mut(weights.outputs)) {
            let at = pixel / phase.pixels * out_rows + phase.out[pixel % phase.pixels] as usize;
            if let Some(add) = add {
                row.iter_mut().zip(&add[at * weights.outputs..]).for_each(|(v, a)| *v += a);
            }
            let to = out.row(at);
            // SAFETY: `to` begins a row of `outputs` elements that only this task writes, in another allocation.
            unsafe { to.copy_from_nonoverlapping(row.as_ptr(), weights.outputs) };
        }
    });
}

/// Adds to `sum`, `[taps, c, BLOCK]`, the products of these pixels' patches and gradients of these output channels.
pub(super) fn weight_grad(
    g: &Geometry,
    phase: &Phase,
    x: &[f32],
    dy: &[f32],
    pixels: Range<usize>,
    outputs: Range<usize>,
    sum: &mut [f32],
) {
    let inner = phase.taps.len() * g.c;
    SCRATCH.with_borrow_mut(|(patches, _)| {
        for start in pixels.clone().step_by(GRAD_TILE) {
            let tile = start..(start + GRAD_TILE).min(pixels.end);
            let a = View::rows(panel(patches, x, g.h * g.w, g.c, phase, tile.clone()), inner).t();
            let b = View::rows(&dy[start * g.o + outputs.start..], g.o);
            matmul(sum, BLOCK, true, 1.0, a, b, [inner, outputs.len(), tile.len()]);
        }
    });
}
