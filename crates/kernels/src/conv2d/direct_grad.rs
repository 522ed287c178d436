//! The weight gradient without transforms: for each tap the outer products of source rows and gradient rows.
//!
//! Rows of 64 channels are copied side by side, a tile of pixels at a time, before they are multiplied: as they lie in the image,
//! a power of two apart, they would share a few lines of the first-level cache and push each other out.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::direct::{Rows, TASKS, border, borders};
use super::geometry::Geometry;
use super::outer::{Groups, outer};
use super::pack::BLOCK;
use super::reduce::reduce;
use crate::isa::{Isa, multiversion};

/// Pixels whose products are added before the next tap's.
const TILE: usize = 128;
/// The values of a tile's gradient rows of one block of channels.
const PANEL: usize = TILE * BLOCK;
/// Values from a copied source row to the next. The micro-kernel walks down a few columns: an odd number of cache lines spreads
/// them over all cache sets.
const ROW: usize = BLOCK + 16;
/// Marks a row of padding.
const NONE: usize = usize::MAX;
/// Blocks of source channels and of output channels that a task multiplies with each other: copies and reads shared.
const GROUP: [usize; 2] = [4, 2];

/// What a thread keeps from task to task.
struct Scratch {
    /// Copies of source rows and of gradient rows.
    rows_x: Vec<f32>,
    rows_dy: Vec<f32>,
    /// Where a tile's rows lie.
    at: Vec<usize>,
    /// Where the next tile's rows lie.
    ahead: Vec<*const f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const {
        RefCell::new(Scratch { rows_x: Vec::new(), rows_dy: Vec::new(), at: Vec::new(), ahead: Vec::new() })
    };
}

multiversion! {
    /// Copies `used` values from each of `rows`, positions in `data`, to rows `stride` apart; zeros for [`NONE`].
    fn side_by_side(data: &[f32], rows: &[usize], first: usize, used: usize, to: &mut [f32], stride: usize) {
        for (&row, to) in rows.iter().zip(to.chunks_exact_mut(stride)) {
            let to = &mut to[..BLOCK];
            match row {
                NONE => to.fill(0.0),
                _ if used == BLOCK => to.copy_from_slice(&data[row + first..][..BLOCK]),
                _ => to[..used].copy_from_slice(&data[row + first..][..used]),
            }
        }
    }

    /// Copies patches: of each of `rows`, `pieces` pieces of `length` values, `stride` apart, one after another, of which the values
    /// from `first` on, at most BLOCK, go to rows of ROW.
    fn patches(data: &[f32], rows: &[usize], layout: [usize; 3], first: usize, to: &mut [f32]) {
        let [pieces, length, stride] = layout;
        let end = (first + BLOCK).min(pieces * length);
        for (&row, to) in rows.iter().zip(to.chunks_exact_mut(ROW)) {
            let mut at = first;
            while at < end {
                let (piece, inside) = (at / length, at % length);
                let count = (length - inside).min(end - at);
                let from = &data[row + piece * stride + inside..][..count];
                to[at - first..][..count].iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                at += count;
            }
        }
    }
}

/// What the rows of `dw` are made of.
struct Sources<'a> {
    data: &'a [f32],
    /// For each tap, the position of each pixel's row in its image, or [`NONE`]; taps by pixels of an image.
    rows: Vec<usize>,
    taps: usize,
    /// Values of an image.
    image: usize,
    /// Values of a row.
    inputs: usize,
    /// Of a row that is a patch: pieces, their length and distance.
    patch: Option<[usize; 3]>,
}

/// The gradient for `w`, `[o, kh, kw, c]`, of the output's gradient `dy`.
pub(super) fn weight_grad(isa: Isa, g: &Geometry, x: &[f32], dy: &[f32]) -> Vec<f32> {
    if borders(g) {
        // So few channels that a whole patch is one row.
        let (bordered, phase) = g.bordered();
        let rows = phase.source[..phase.pixels].iter().map(|&row| row as usize * g.c).collect();
        let patch = Some([g.kh, g.kw * g.c, bordered.w * g.c]);
        let (data, image, inputs) = (border(g, x), bordered.h * bordered.w * g.c, g.kh * g.kw * g.c);
        return products(isa, g, &Sources { data: &data, rows, taps: 1, image, inputs, patch }, dy);
    }
    let phase = g.forward_phase();
    let rows = phase.source.iter().map(|&row| usize::try_from(row).map_or(NONE, |row| row * g.c)).collect();
    let (taps, image) = (phase.taps.len(), g.h * g.w * g.c);
    products(isa, g, &Sources { data: x, rows, taps, image, inputs: g.c, patch: None }, dy)
}

fn products(isa: Isa, g: &Geometry, x: &Sources, dy: &[f32]) -> Vec<f32> {
    const SQUARE: usize = BLOCK * BLOCK;
    let (per_image, pixels) = (g.oh * g.ow, g.n * g.oh * g.ow);
    let blocks = [x.inputs.div_ceil(BLOCK), g.o.div_ceil(BLOCK)];
    // A task: some blocks on each side (fewer with many taps, whose sums it holds) and a chunk of pixels. All counts follow from
    // shapes, so the order of the sum does too.
    let group = if x.taps == 1 { GROUP } else { [2, 2] };
    let groups = [blocks[0].div_ceil(group[0]), blocks[1].div_ceil(group[1])];
    let chunks = TASKS.div_ceil(groups[0] * groups[1]).min(pixels.div_ceil(8 * TILE));
    let chunk = pixels.div_ceil(chunks).next_multiple_of(TILE);
    let chunks = pixels.div_ceil(chunk);
    let mut parts = vec![0f32; blocks[0] * blocks[1] * chunks * x.taps * SQUARE];
    let sums = Rows::new(&mut parts, blocks[0] * blocks[1] * chunks * x.taps, SQUARE);
    (0..groups[0] * groups[1] * chunks).into_par_iter().with_max_len(1).for_each(|task| {
        let (part, side) = (task % chunks, task / chunks);
        let inputs = side / groups[1] * group[0]..((side / groups[1] + 1) * group[0]).min(blocks[0]);
        let outputs = side % groups[1] * group[1]..((side % groups[1] + 1) * group[1]).min(blocks[1]);
        let used = |block: usize, all: usize| (all - block * BLOCK).min(BLOCK);
        let rows = |pixels: Range<usize>, tap: usize, to: &mut Vec<usize>| {
            let rows = &x.rows[tap * per_image..][..per_image];
            let (mut image, mut pixel) = (pixels.start / per_image * x.image, pixels.start % per_image);
            to.clear();
            for _ in pixels {
                to.push(if rows[pixel] == NONE { NONE } else { image + rows[pixel] });
                pixel += 1;
                if pixel == per_image {
                    (image, pixel) = (image + x.image, 0);
                }
            }
        };
        SCRATCH.with_borrow_mut(|Scratch { rows_x, rows_dy, at, ahead }| {
            rows_x.resize(TILE * ROW, 0.0);
            rows_dy.resize(GROUP[1] * PANEL, 0.0);
            let end = ((part + 1) * chunk).min(pixels);
            for start in (part * chunk..end).step_by(TILE) {
                let count = TILE.min(end - start);
                at.clear();
                at.extend((start..start + count).map(|pixel| pixel * g.o));
                for (block, to) in outputs.clone().zip(rows_dy.chunks_exact_mut(PANEL)) {
                    side_by_side(dy, at, block * BLOCK, used(block, g.o), to, BLOCK);
                }
                let next = start + count..(start + count + TILE).min(end);
                let square = |source: usize, block: usize| (source * blocks[1] + block) * chunks + part;
                for tap in 0..x.taps {
                    // What the next tile will copy for this tap, shared out over this tap's products.
                    ahead.clear();
                    if tap == 0 {
                        ahead.extend(next.clone().flat_map(|pixel| {
                            outputs.clone().map(move |block| dy.as_ptr().wrapping_add(pixel * g.o + block * BLOCK))
                        }));
                    }
                    if x.patch.is_none() {
                        rows(next.clone(), tap, at);
                        ahead.extend(at.iter().filter(|&&at| at != NONE).flat_map(|at| {
                            inputs.clone().map(move |block| x.data.as_ptr().wrapping_add(at + block * BLOCK))
                        }));
                    }
                    let mut ahead = ahead.chunks(ahead.len().div_ceil(inputs.len() * outputs.len()).max(1));
                    rows(start..start + count, tap, at);
                    for source in inputs.clone() {
                        match x.patch {
                            Some(layout) => patches(x.data, at, layout, source * BLOCK, rows_x),
                            None => side_by_side(x.data, at, source * BLOCK, used(source, x.inputs), rows_x, ROW),
                        }
                        for (block, rows_dy) in outputs.clone().zip(rows_dy.chunks_exact(PANEL)) {
                            let square = square(source, block) * x.taps + tap;
                            // SAFETY: this task alone has this square of `parts`.
                            let sum = unsafe { std::slice::from_raw_parts_mut(sums.row(square), SQUARE) };
                            let dims = [count, used(source, x.inputs), used(block, g.o)];
                            let groups = Groups { group: TILE, between: 0, x_row: ROW };
                            outer(isa, rows_x, rows_dy, groups, sum, dims, ahead.next().unwrap_or_default());
                        }
                    }
                }
            }
        });
    });
    reduce(&parts, chunks, [g.o, x.taps, x.inputs])
}
