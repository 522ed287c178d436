//! The weight gradient: sums over pixels of outer products of gradient rows and source rows.
//!
//! For a tile of pixels, a task copies the gradients of its output channels, and for each tap the source rows, into
//! panels of words, `[steps][channels]`: an f32 value of one pixel to a step, or a pair from two, which is the order that
//! pairs of bf16 are multiplied in. The panel of 64 source channels stays in the first-level cache while the output
//! channels pass by. Copying costs 1.5 cycles for every 16 values, products half a cycle for every 16 values and channel
//! of the other side. Where much of a tap is padding (small images), pixels outside are left out of both panels.

use std::cell::RefCell;
use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use crate::conv2d::geometry::Phase;
use crate::words::kernels::{Outer, dot, fma};
use crate::words::{BLOCK, Line, Unit, last_mask, step};

/// Steps of a panel: 32 KB for 64 channels.
const STEPS: usize = 128;
/// Pixels that are worth a partial sum of their own.
const CHUNK: usize = 8192;
/// Tasks that a call is cut into where its size allows.
const TASKS: usize = 16;

/// The source and gradient rows of a weight gradient.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// Source images of `rows` rows, `width` values from one to the next, of which a tap reads `inputs`.
    pub(super) x: &'a [bf16],
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) inputs: usize,
    /// One row of `outputs` values for each pixel.
    pub(super) dy: &'a [bf16],
    pub(super) outputs: usize,
}

/// Where tasks write.
#[derive(Clone, Copy)]
struct Out(*mut f32);

impl Out {
    /// The first element. (A closure that reads the field would capture the pointer alone.)
    fn start(&self) -> *mut f32 {
        self.0
    }
}

// SAFETY: tasks write different chunks, output channels or taps.
unsafe impl Send for Out {}
// SAFETY: as above; nothing reads through it until all are done.
unsafe impl Sync for Out {}

#[derive(Default)]
struct Scratch {
    x: Vec<Line>,
    dy: Vec<Line>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// One task's share.
struct Share {
    pixels: Range<usize>,
    outputs: Range<usize>,
    taps: Range<usize>,
}

/// `[outputs, taps, inputs]` for all pixels of `images` images.
pub(super) fn weight_grad(unit: Unit, images: usize, phase: &Phase, rows: Rows) -> Vec<f32> {
    let (taps, pixels) = (phase.taps.len(), images * phase.pixels);
    // Shares follow from shapes alone, and so does the order of every sum.
    let chunks = (pixels / CHUNK).clamp(1, TASKS);
    let chunk = pixels.div_ceil(chunks).next_multiple_of(2 * STEPS);
    let chunks = pixels.div_ceil(chunk);
    let padding = phase.source.iter().filter(|&&row| row < 0).count() as f64 / phase.source.len() as f64;
    let skip = padding * rows.inputs as f64 > 4.0;
    let mut range = rows.outputs.min(256);
    let mut groups = 1;
    if skip && chunks * rows.outputs.div_ceil(range) < TASKS {
        groups = taps;
    }
    while range > 64 && chunks * groups * rows.outputs.div_ceil(range) < TASKS {
        range /= 2;
    }
    let range = rows.outputs.div_ceil(rows.outputs.div_ceil(range)).next_multiple_of(2);
    let ranges = rows.outputs.div_ceil(range);
    let size = rows.outputs * taps * rows.inputs;
    let mut dw: Vec<f32> = Vec::with_capacity(size);
    let mut partial: Vec<f32> = Vec::with_capacity(if chunks > 1 { chunks * size } else { 0 });
    let out = Out(if chunks > 1 { partial.as_mut_ptr() } else { dw.as_mut_ptr() });
    (0..chunks * ranges * groups).into_par_iter().with_max_len(1).for_each(|task| {
        let (chunk_index, rest) = (task / (ranges * groups), task % (ranges * groups));
        let (first, tap) = (rest % ranges * range, rest / ranges);
        let share = Share {
            pixels: chunk_index * chunk..((chunk_index + 1) * chunk).min(pixels),
            outputs: first..(first + range).min(rows.outputs),
            taps: if groups == 1 { 0..taps } else { tap..tap + 1 },
        };
        SCRATCH.with_borrow_mut(|scratch| {
            // SAFETY: the chunk's sum has room for `size` values, of which this task alone writes its channels and taps.
            unsafe { add(unit, phase, &rows, &share, skip, scratch, out.start().add(chunk_index * size)) }
        });
    });
    if chunks > 1 {
        // SAFETY: the tasks of each chunk wrote all of it.
        unsafe { partial.set_len(chunks * size) };
        dw = sum(&partial, size);
    } else {
        // SAFETY: the tasks wrote all of it.
        unsafe { dw.set_len(size) };
    }
    dw
}

/// The sum of the chunks' sums, in their order.
fn sum(partial: &[f32], size: usize) -> Vec<f32> {
    let mut dw = partial[..size].to_vec();
    const SPAN: usize = 1 << 14;
    dw.par_chunks_mut(SPAN).enumerate().for_each(|(i, dw)| {
        for part in partial.chunks_exact(size).skip(1) {
            dw.iter_mut().zip(&part[i * SPAN..]).for_each(|(sum, v)| *sum += v);
        }
    });
    dw
}

/// A task: writes its share of `to`, `[outputs, taps, inputs]`.
///
/// # Safety
/// `to` has room for it, and the share is this task's alone.
unsafe fn add(unit: Unit, phase: &Phase, rows: &Rows, share: &Share, skip: bool, scratch: &mut Scratch, to: *mut f32) {
    let taps = phase.taps.len();
    let outputs = share.outputs.len();
    // One line more than the channels fill, so that the lines of a column do not all fall on a few of the cache's sets.
    let apart = outputs.div_ceil(16) + 1;
    scratch.dy.resize(STEPS * apart, Line::ZERO);
    scratch.x.resize(STEPS * BLOCK / 16, Line::ZERO);
    let per_tile = STEPS * unit.values();
    let zeros: Vec<bf16> = vec![bf16::ZERO; rows.inputs.max(outputs)];
    let mut list: Vec<(*const bf16, *const bf16)> = Vec::with_capacity(per_tile + 1);
    for start in share.pixels.clone().step_by(per_tile) {
        let places: Vec<(usize, usize)> = (start..(start + per_tile).min(share.pixels.end))
            .map(|pixel| (pixel / phase.pixels * rows.rows, pixel % phase.pixels))
            .collect();
        for tap in share.taps.clone() {
            list.clear();
            let table = &phase.source[tap * phase.pixels..][..phase.pixels];
            for (i, &(image, place)) in places.iter().enumerate() {
                let x = match table[place] {
                    -1 if skip => continue,
                    -1 => &zeros[..rows.inputs],
                    row => &rows.x[(image + row as usize) * rows.width..][..rows.inputs],
                };
                let dy = &rows.dy[(start + i) * rows.outputs + share.outputs.start..][..outputs];
                list.push((x.as_ptr(), dy.as_ptr()));
            }
            if !list.len().is_multiple_of(unit.values()) {
                list.push((zeros.as_ptr(), zeros.as_ptr()));
            }
            let steps = list.len() / unit.values();
            let pairs = |i: usize| (list[i * unit.values()], list[(i + 1) * unit.values() - 1]);
            // SAFETY: the unit was chosen on a machine that has it; rows hold their channels, as cut above, panels were made
            // for their steps, and `to` as this function's contract says.
            unsafe {
                if skip || tap == share.taps.start {
                    for i in 0..steps {
                        let (a, b) = pairs(i);
                        step(unit, [a.1, b.1], scratch.dy.as_mut_ptr().add(i * apart), outputs);
                    }
                }
                for block in (0..rows.inputs).step_by(BLOCK) {
                    let used = (rows.inputs - block).min(BLOCK);
                    let vectors = used.div_ceil(16);
                    for i in 0..steps {
                        let (a, b) = pairs(i);
                        step(unit, [a.0.add(block), b.0.add(block)], scratch.x.as_mut_ptr().add(i * vectors), used);
                    }
                    let outer = Outer {
                        x: scratch.x.as_ptr(),
                        dy: scratch.dy.as_ptr().cast(),
                        apart: apart * 16,
                        steps,
                        to: to.add((share.outputs.start * taps + tap) * rows.inputs + block),
                        row: taps * rows.inputs,
                        lanes: last_mask(used),
                        first: start == share.pixels.start,
                        stream: false,
                    };
                    match unit {
                        Unit::F32 | Unit::Fma => fma::outer(&outer, vectors, outputs),
                        Unit::Dot => dot::outer(&outer, vectors, outputs),
                    }
                }
            }
        }
    }
}
