//! 3x3 convolution of stride 1 by Winograd's algorithm F(4x4, 3x3) (Lavin and Gray 2016, arXiv:1509.09308): 36 products for
//! sixteen output pixels and one channel instead of 144.
//!
//! A task takes a block of tiles (4x4 output pixels, 6x6 of the source) and some blocks of output channels: it transforms the
//! tiles, multiplies each of the 36 places by its matrix of transformed weights, and transforms the results back. What it
//! holds in between fits the second-level cache. The input gradient is the same with a turned kernel.
//!
//! Pixels may be bf16: they are widened on their way into the transforms and rounded once on their way out; everything
//! between is f32.

mod grad;
mod lanes;
#[cfg(target_arch = "x86_64")]
mod micro;
#[cfg(test)]
mod tests;
mod transform;

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::direct::{Rows, TASKS};
use super::geometry::Geometry;
use super::pack::{BLOCK, Packed};
use crate::isa::Isa;
use crate::matmul::{View, matmul};
pub(super) use grad::weight_grad;
use lanes::{LANES, Pixel};
use transform::{PLACES, POINTS, STEP, gather_output, spread_image, spread_kernel};

/// The fewest channels, on either side, with which the transforms are worth their time.
const CHANNELS: usize = 32;
/// Values between two places' tiles, so that the places of a tile do not share the few lines of one cache set.
const SKEW: usize = 16;
/// Source channels of a run of weights for the micro-kernels.
const RUN: usize = 8;
/// Tiles of a group for the micro-kernels, which take as many at once.
const GROUP: usize = 6;

thread_local! {
    /// A thread's transformed tiles and their products, kept from task to task.
    static SCRATCH: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Whether this algorithm can run the convolution, and whether its tiles would be filled and its channels many enough.
fn fits(g: &Geometry) -> bool {
    let place = |size: usize| size.div_ceil(STEP) * POINTS;
    let filled = |[h, w]: [usize; 2]| 3 * place(h) * place(w) <= 2 * 9 * h * w;
    let shape = g.kh == 3 && g.kw == 3 && g.stride == 1 && g.padding <= 2;
    shape && g.c.min(g.o) >= CHANNELS && filled([g.oh, g.ow]) && filled([g.h, g.w])
}

fn tiles(g: &Geometry) -> usize {
    g.n * g.oh.div_ceil(STEP) * g.ow.div_ceil(STEP)
}

/// Whether the forward pass and the input gradient run here: there are enough tiles to pay for transforming the weights.
pub(super) fn suits(g: &Geometry) -> bool {
    fits(g) && tiles(g) >= 64
}

/// Whether the weight gradient runs here: there are enough tiles to pay for transforming the sums.
pub(super) fn suits_weight_grad(g: &Geometry) -> bool {
    fits(g) && tiles(g) >= 32
}

/// One convolution without stride: source images `[h, w, inputs]`, outputs `[oh, ow, outputs]`.
struct Sizes {
    images: usize,
    source: [usize; 2],
    inputs: usize,
    out: [usize; 2],
    outputs: usize,
    padding: usize,
}

/// `y` `[n, oh, ow, o]` of `x` and `w`.
pub(super) fn forward<T: Pixel>(isa: Isa, g: &Geometry, x: &[T], w: &[f32]) -> Vec<T> {
    let taps: Vec<usize> = (0..9).collect();
    let packed = Packed::new(w, &taps, g.c, g.o, [9 * g.c, g.c, 1], LANES);
    let (source, out) = ([g.h, g.w], [g.oh, g.ow]);
    let s = Sizes { images: g.n, source, inputs: g.c, out, outputs: g.o, padding: g.padding };
    convolve(isa, &s, x, &packed, None)
}

/// The gradient for `x`, `[n, h, w, c]`, of the output's gradient `dy`; plus `add`, which has that shape.
pub(super) fn input_grad<T: Pixel>(isa: Isa, g: &Geometry, w: &[f32], dy: &[T], add: Option<&[T]>) -> Vec<T> {
    let taps: Vec<usize> = (0..9).rev().collect();
    let packed = Packed::new(w, &taps, g.o, g.c, [1, g.c, 9 * g.c], LANES);
    let (source, out) = ([g.oh, g.ow], [g.h, g.w]);
    let s = Sizes { images: g.n, source, inputs: g.o, out, outputs: g.c, padding: 2 - g.padding };
    convolve(isa, &s, dy, &packed, add)
}

/// A pointer that tasks share, each to write a part of its own.
#[derive(Clone, Copy)]
struct Shared(*mut f32);

// SAFETY: whoever uses it writes disjoint parts.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// `at` lies inside the allocation.
    unsafe fn at(self, at: usize) -> *mut f32 {
        // SAFETY: the contract is the same.
        unsafe { self.0.add(at) }
    }
}

/// The transformed weights: `[blocks][runs][PLACES][run][width(block)]` with a gap after each place, for runs of source channels.
struct Weights<'a> {
    packed: &'a Packed,
    data: Vec<f32>,
    /// Source channels of a run: few for the micro-kernels, for the same reason as in [`Spread`]; all for `gemm`.
    run: usize,
}

impl<'a> Weights<'a> {
    fn new(isa: Isa, packed: &'a Packed) -> Self {
        let run = if isa < Isa::Avx512 { packed.inputs } else { RUN };
        let mut all = Self { packed, data: Vec::new(), run };
        let runs = packed.inputs.div_ceil(run);
        let len = (0..packed.blocks()).map(|block| runs * all.between(block)).sum();
        let mut data: Vec<f32> = Vec::with_capacity(len);
        let out = Shared(data.as_mut_ptr());
        let pieces = packed.inputs.div_ceil(RUN);
        (0..packed.blocks() * pieces).into_par_iter().for_each(|task| {
            let (block, first) = (task / pieces, task % pieces * RUN);
            let (width, from) = (packed.width(block), packed.block(block));
            for input in first..(first + RUN).min(packed.inputs) {
                let at = all.begin(block) + input / run * all.between(block) + input % run * width;
                let from = from[input * width..].as_ptr();
                // SAFETY: both sides hold a row of `width` values for each tap and place; each is written once.
                unsafe { spread_kernel(isa, from, packed.inputs * width, out.at(at), all.place(block), width / LANES) };
            }
        });
        // SAFETY: the tasks wrote every row of every place. Gaps and what a last run lacks are never read.
        unsafe { data.set_len(len) };
        all.data = data;
        all
    }

    /// Where a block begins.
    fn begin(&self, block: usize) -> usize {
        // Only the last block may be narrower.
        block * self.packed.inputs.div_ceil(self.run) * PLACES * (self.run * BLOCK + SKEW)
    }

    /// Values from one place to the next.
    fn place(&self, block: usize) -> usize {
        self.run * self.packed.width(block) + SKEW
    }

    /// Values from one run to the next.
    fn between(&self, block: usize) -> usize {
        PLACES * self.place(block)
    }
}

/// The tiles of a batch: where their pixels lie.
struct Tiles<'a, T> {
    /// Images `[size, channels]`.
    data: &'a [T],
    size: [usize; 2],
    channels: usize,
    /// Tiles of an image, down and across.
    count: [usize; 2],
    zeros: Vec<T>,
}

impl<'a, T: Pixel> Tiles<'a, T> {
    fn new(data: &'a [T], size: [usize; 2], channels: usize, count: [usize; 2]) -> Self {
        Self { data, size, channels, count, zeros: vec![T::zero(); channels] }
    }

    /// The N x N pixels of a tile from `padding` above and left of its first output on; zeros where there are none.
    fn pixels<const N: usize, const ALL: usize>(&self, tile: usize, padding: usize) -> [*const T; ALL] {
        let (across, per_image) = (self.count[1], self.count[0] * self.count[1]);
        let (top, left) = (tile % per_image / across * STEP, tile % across * STEP);
        let image = self.size[0] * self.size[1] * self.channels;
        let image = &self.data[tile / per_image * image..][..image];
        std::array::from_fn(|i| {
            let (row, col) = ((top + i / N).wrapping_sub(padding), (left + i % N).wrapping_sub(padding));
            match row < self.size[0] && col < self.size[1] {
                true => image[(row * self.size[1] + col) * self.channels..].as_ptr(),
                false => self.zeros.as_ptr(),
            }
        })
    }
}

fn convolve<T: Pixel>(isa: Isa, s: &Sizes, source: &[T], weights: &Packed, add: Option<&[T]>) -> Vec<T> {
    let weights = Weights::new(isa, weights);
    let count = s.out.map(|size| size.div_ceil(STEP));
    let all = s.images * count[0] * count[1];
    let len = s.images * s.out[0] * s.out[1] * s.outputs;
    let mut y: Vec<T> = Vec::with_capacity(len);
    let out = Rows::new(&mut y, s.images * s.out[0] * s.out[1], s.outputs);
    let tiles = Tiles::new(source, s.source, s.inputs, count);
    let blocks = weights.packed.blocks();
    let most = tiles_of_a_task(s.inputs);
    let tasks = all.div_ceil(most.min((all * blocks).div_ceil(TASKS)).max(24));
    let size = all.div_ceil(tasks).next_multiple_of(GROUP);
    let tasks = all.div_ceil(size);
    // Few groups: each transforms the tiles again.
    let group = blocks.div_ceil((TASKS / 4).div_ceil(tasks));
    let groups = blocks.div_ceil(group);
    (0..tasks * groups).into_par_iter().with_max_len(1).for_each(|task| {
        let (first, part) = (task / groups * size, task % groups * group);
        let tile_range = first..(first + size).min(all);
        block_of_tiles(isa, s, &tiles, tile_range, &weights, part..(part + group).min(blocks), add, out);
    });
    // SAFETY: the tasks partition tiles and channels, and each wrote its part of its tiles' pixels.
    unsafe { y.set_len(len) };
    y
}

/// The tiles whose transformed values take about half of a second-level cache of 2 MB.
fn tiles_of_a_task(inputs: usize) -> usize {
    (200_000 / (PLACES * inputs)).clamp(48, 96) / GROUP * GROUP
}

/// How transformed values lie in memory: `[groups][blocks of channels][PLACES][tiles of a group][BLOCK]`, with a gap after each
/// place. One block of a small group is 58 KB, so that a tile's 36 stores stay on a dozen pages: a transform that wrote to a page
/// of its own for each place would wait for address translation.
#[derive(Clone, Copy)]
struct Spread {
    group: usize,
}

impl Spread {
    /// Small groups for the micro-kernels; one group for `gemm`, which wants large matrices.
    fn new(isa: Isa, count: usize) -> Self {
        Self { group: if isa < Isa::Avx512 { count } else { GROUP } }
    }

    /// Values from one place to the next.
    fn place(self) -> usize {
        self.group * BLOCK + SKEW
    }

    /// Values from one block of channels to the next, or to the next group if there is one block.
    fn block(self) -> usize {
        PLACES * self.place()
    }

    /// Where a tile's values begin, in its block of channels of `blocks`.
    fn tile(self, tile: usize, block: usize, blocks: usize) -> usize {
        (tile / self.group * blocks + block) * self.block() + tile % self.group * BLOCK
    }

    /// The values of `count` tiles.
    fn len(self, count: usize, blocks: usize) -> usize {
        count.div_ceil(self.group) * blocks * self.block()
    }
}

#[allow(clippy::too_many_arguments)]
fn block_of_tiles<T: Pixel>(
    isa: Isa,
    s: &Sizes,
    tiles: &Tiles<T>,
    range: Range<usize>,
    weights: &Weights,
    blocks: Range<usize>,
    add: Option<&[T]>,
    out: Rows<T>,
) {
    let count = range.len();
    let spread = Spread::new(isa, count);
    let sources = s.inputs.div_ceil(BLOCK);
    let per_image = tiles.count[0] * tiles.count[1];
    SCRATCH.with_borrow_mut(|(v, m)| {
        // Longer than before only on a thread's first tasks.
        v.resize(v.len().max(spread.len(count, sources)), 0.0);
        m.resize(m.len().max(spread.len(count, 1)), 0.0);
        for (i, tile) in range.clone().enumerate() {
            let pixels = tiles.pixels::<POINTS, PLACES>(tile, s.padding);
            for block in 0..sources {
                let channels = block * BLOCK..((block + 1) * BLOCK).min(s.inputs);
                let to = v[spread.tile(i, block, sources)..].as_mut_ptr();
                // SAFETY: the pixels begin `inputs` values; `v` holds `BLOCK` channels of `count` tiles for each place.
                unsafe { spread_image(isa, &pixels, channels, to, spread.place()) };
            }
        }
        for block in blocks {
            let used = weights.packed.used(block);
            for place in 0..PLACES {
                let at = place * spread.place();
                products(isa, spread, &v[at..], weights, [block, place], &mut m[at..], count);
            }
            for (i, tile) in range.clone().enumerate() {
                let image = tile / per_image * s.out[0] * s.out[1];
                let (top, left) = (tile % per_image / tiles.count[1] * STEP, tile % tiles.count[1] * STEP);
                let mut to = [std::ptr::null_mut(); STEP * STEP];
                let mut plus = [std::ptr::null(); STEP * STEP];
                for (pixel, (to, plus)) in to.iter_mut().zip(&mut plus).enumerate() {
                    let (r, q) = (top + pixel / STEP, left + pixel % STEP);
                    if r < s.out[0] && q < s.out[1] {
                        let row = image + r * s.out[1] + q;
                        // SAFETY: the row has `outputs` values, of which these are the block's.
                        *to = unsafe { out.row(row).add(block * BLOCK) };
                        *plus = add.map_or(*plus, |add| add[row * s.outputs + block * BLOCK..].as_ptr());
                    }
                }
                let from = m[spread.tile(i, 0, 1)..].as_ptr();
                // SAFETY: `m` holds the products of `count` tiles, `BLOCK` values for each place; the rest as above.
                unsafe { gather_output(isa, from, spread.place(), used, &to, add.map(|_| &plus)) };
            }
        }
    });
}

/// One place of `m` = one place of `v` times the same of a block of weights, for `count` tiles.
fn products(
    isa: Isa,
    spread: Spread,
    v: &[f32],
    weights: &Weights,
    [block, place]: [usize; 2],
    m: &mut [f32],
    count: usize,
) {
    let (inputs, width) = (weights.packed.inputs, weights.packed.width(block));
    let sources = inputs.div_ceil(BLOCK);
    // All but the places before and after this one.
    let rest = spread.block() - spread.place();
    assert!(v.len() + rest >= spread.len(count, sources) && m.len() + rest >= spread.len(count, 1));
    let u = &weights.data[weights.begin(block) + place * weights.place(block)..];
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 => {
            let (v, u, m) = (v.as_ptr(), u.as_ptr(), m.as_mut_ptr());
            // SAFETY: this set was detected; lengths of tiles were just asserted; the weights are those of `Weights::new`.
            unsafe { micro::products(v, spread.block(), u, weights.between(block), width / LANES, m, count, inputs) }
        }
        _ => {
            for source in 0..sources {
                let (first, used) = (source * BLOCK, (inputs - source * BLOCK).min(BLOCK));
                let (a, b) = (View::rows(&v[source * spread.block()..], BLOCK), View::rows(&u[first * width..], width));
                matmul(m, BLOCK, source > 0, 1.0, a, b, [count, width, used]);
            }
        }
    }
}
