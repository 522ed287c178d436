//! Forward pass and input gradient: an output row is a sum over taps of a source row times a matrix of weights.
//!
//! A task is a tile of pixels for some blocks of output channels. For the f32 unit it first widens the source rows that
//! its tile reads into scratch of its thread, which stays in the second-level cache; pairs are read where they lie.
//! In small images, where much of what a kernel covers is padding, a tile holds the same places of several images, so
//! that a micro-kernel's pixels have their padding in common and skip its taps.

use std::cell::RefCell;
use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::pack::Packed;
use super::reach::Reach;
use crate::words::kernels::{Ahead, End, MOST, Part, Tile, dot, fma};
use crate::words::{BLOCK, Line, Unit, ZEROS, last_mask, widen_row};

/// The most output pixels of a task.
const TILE: usize = 240;
/// Values of scratch for widened rows: 1 MB.
const ROOM: usize = 1 << 18;
/// Tasks that a call is cut into where its size allows, for even shares and for machines of many cores.
const TASKS: usize = 32;
/// Images whose same places make a tile: the pixels of the widest micro-kernel.
const TOGETHER: usize = 6;
/// The most pixels of an image that is taken together with others.
const SMALL: usize = 28 * 28;

/// Source images: `rows` rows each, `width` values from one to the next.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) data: &'a [bf16],
    pub(super) rows: usize,
    pub(super) width: usize,
}

/// Where tasks write; each writes other rows or other channels of a row.
#[derive(Clone, Copy)]
struct Out(*mut bf16);

impl Out {
    /// The first element. (A closure that reads the field would capture the pointer alone.)
    fn start(&self) -> *mut bf16 {
        self.0
    }
}

// SAFETY: tasks on different threads write different elements (the phases partition an image's pixels, tiles and groups of
// blocks a phase's).
unsafe impl Send for Out {}
// SAFETY: as above; nothing reads through it.
unsafe impl Sync for Out {}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// How a phase's pixels are cut into tiles: `images` images at a time, `places` places of each.
struct Cut {
    all: [usize; 2],
    images: usize,
    places: usize,
}

impl Cut {
    /// `blocks` is the number of blocks of output channels.
    fn new(images: usize, phase: &Reach, inputs: usize, blocks: usize) -> Self {
        let all = [images, phase.pixels];
        let tile = TILE.min((images * phase.pixels * blocks).div_ceil(TASKS)).max(48).min((ROOM / inputs).max(48));
        let together = phase.taps.len() > 1 && images >= TOGETHER && phase.pixels <= SMALL;
        match together {
            true => Self { all, images: TOGETHER, places: (tile / TOGETHER).max(1) },
            // One list of all pixels.
            false => Self { all: [1, images * phase.pixels], images: 1, places: tile.next_multiple_of(12) },
        }
    }

    fn tiles(&self) -> usize {
        self.all[0].div_ceil(self.images) * self.all[1].div_ceil(self.places)
    }

    /// The images of a tile with its places in each, and whether they go side by side.
    fn spans(&self, tile: usize, phase: &Reach) -> (Vec<(usize, Range<usize>)>, bool) {
        let across = self.all[1].div_ceil(self.places);
        let (image, place) = (tile / across * self.images, tile % across * self.places);
        let places = place..(place + self.places).min(self.all[1]);
        if self.images > 1 {
            return ((image..(image + self.images).min(self.all[0])).map(|i| (i, places.clone())).collect(), true);
        }
        let images = places.start / phase.pixels..places.end.div_ceil(phase.pixels);
        let of = |image: usize| {
            let first = image * phase.pixels;
            (image, places.start.max(first) - first..places.end.min(first + phase.pixels) - first)
        };
        (images.map(of).collect(), false)
    }
}

/// `[images, out_rows, outputs]`: every output row is the sum over taps of a source row times weights, plus its row of `add`.
pub(super) fn gather(
    unit: Unit,
    images: usize,
    source: Source,
    phases: &[(Reach, Packed)],
    add: Option<&[bf16]>,
    [out_rows, outputs]: [usize; 2],
) -> Vec<bf16> {
    let len = images * out_rows * outputs;
    let mut y: Vec<bf16> = Vec::with_capacity(len);
    let out = Out(y.as_mut_ptr());
    for (phase, weights) in phases {
        let blocks = weights.blocks();
        let cut = Cut::new(images, phase, weights.inputs, blocks);
        let tiles = cut.tiles();
        let group = blocks.div_ceil(TASKS.div_ceil(tiles));
        let groups = blocks.div_ceil(group);
        (0..tiles * groups).into_par_iter().with_max_len(1).for_each(|task| {
            let first = task % groups * group;
            SCRATCH.with_borrow_mut(|scratch| {
                scratch.fill(unit, source, phase, weights.inputs, cut.spans(task / groups, phase), out_rows);
                let parts = weights.parts();
                let tile = Tile {
                    from: &scratch.from,
                    zeros: scratch.zeros(),
                    count: scratch.count,
                    padded: scratch.to.len(),
                    sums: scratch.sums.as_mut_ptr(),
                };
                for block in first..(first + group).min(blocks) {
                    let vectors = weights.vectors(block);
                    let lanes = last_mask(weights.used(block));
                    let end = End { to: &scratch.to, outputs, channel: block * BLOCK, lanes, out: out.start(), add };
                    for (i, (taps, steps)) in parts.iter().enumerate() {
                        let from = (taps.start * weights.steps + steps.start) * vectors;
                        let panel = &weights.block(block)[from..][..taps.len() * steps.len() * vectors];
                        // An odd last input is a pair that would reach past its row.
                        let odd = unit == Unit::Dot && steps.end * 2 > weights.inputs;
                        // The next part's weights begin where these end.
                        let next = panel.as_ptr_range().end.cast();
                        let part = Part {
                            taps: taps.clone(),
                            start: steps.start,
                            steps: steps.len() - usize::from(odd),
                            odd,
                            panel,
                            ahead: Ahead { next, rows: 1, lines: panel.len(), apart: 0 },
                            first: i == 0,
                            end: (i + 1 == parts.len()).then_some(end),
                        };
                        // SAFETY: the unit was chosen on a machine that has it; rows and weights were made for this phase.
                        unsafe {
                            match unit {
                                Unit::Dot => dot::tile(&tile, &part, vectors),
                                Unit::F32 | Unit::Fma => fma::tile(&tile, &part, vectors),
                            }
                        }
                    }
                }
            });
        });
    }
    // SAFETY: the phases partition the pixels of an image, the tasks a phase's pixels and blocks of channels, and each task
    // wrote its part whole.
    unsafe { y.set_len(len) };
    y
}

/// A tile's pointers and its memory, kept from tile to tile.
#[derive(Default)]
struct Scratch {
    /// Widened source rows.
    rows: Vec<f32>,
    /// Zeros for source rows that are longer than the common ones.
    zeros: Vec<Line>,
    /// Of each pixel: where row 0 of its image would be, and its place.
    pixels: Vec<(*const u8, usize)>,
    count: usize,
    // As in `Tile`.
    from: Vec<*const u32>,
    to: Vec<usize>,
    sums: Vec<f32>,
}

impl Scratch {
    fn zeros(&self) -> *const u32 {
        if self.zeros.is_empty() { ZEROS.as_ptr().cast() } else { self.zeros.as_ptr().cast() }
    }

    /// Prepares a tile.
    fn fill(
        &mut self,
        unit: Unit,
        source: Source,
        phase: &Reach,
        inputs: usize,
        (spans, side_by_side): (Vec<(usize, Range<usize>)>, bool),
        out_rows: usize,
    ) {
        self.zeros.clear();
        if inputs > ZEROS.len() * 16 {
            self.zeros.resize(inputs.div_ceil(16), Line::ZERO);
        }
        self.count = spans.iter().map(|span| span.1.len()).sum();
        let padded = self.count + MOST - 1;
        self.sums.resize(padded * BLOCK, 0.0);
        self.from.clear();
        let bytes = match unit {
            Unit::Dot => {
                let image = |i: usize| source.data[i * source.rows * source.width..].as_ptr().cast();
                self.place(&spans, side_by_side, image);
                2
            }
            Unit::Fma
                if spans.iter().map(|s| phase.reach(&s.1).len()).sum::<usize>() > phase.taps.len() * self.count =>
            {
                self.place(&spans, side_by_side, |_| std::ptr::null());
                self.widen_each(source, phase, inputs, &spans, side_by_side);
                0
            }
            Unit::F32 | Unit::Fma => {
                let images = self.widen_spans(source, phase, inputs, &spans);
                self.place(&spans, side_by_side, |image| images[image - spans[0].0]);
                4
            }
        };
        self.to.clear();
        let mut images = spans.iter().flat_map(|span| std::iter::repeat_n(span.0, span.1.len()));
        for (i, &(_, place)) in self.pixels[..self.count].iter().enumerate() {
            let image = if side_by_side { spans[i % spans.len()].0 } else { images.next().unwrap_or_default() };
            self.to.push(image * out_rows + phase.out[place] as usize);
        }
        self.to.resize(padded, self.to[self.count - 1]);
        if bytes == 0 {
            return;
        }
        let zeros = self.zeros();
        for rows in phase.source.chunks_exact(phase.pixels) {
            self.from.extend(self.pixels.iter().map(|&(image, place)| match rows[place] {
                -1 => zeros,
                row => image.wrapping_add(row as usize * source.width * bytes).cast(),
            }));
        }
    }

    /// Fills `pixels`, the last one repeated.
    fn place(&mut self, spans: &[(usize, Range<usize>)], side_by_side: bool, image: impl Fn(usize) -> *const u8) {
        self.pixels.clear();
        if side_by_side {
            let images: Vec<_> = spans.iter().map(|span| image(span.0)).collect();
            self.pixels.extend(spans[0].1.clone().flat_map(|place| images.iter().map(move |image| (*image, place))));
        } else {
            for (i, places) in spans {
                let image = image(*i);
                self.pixels.extend(places.clone().map(|place| (image, place)));
            }
        }
        self.pixels.resize(self.count + MOST - 1, self.pixels[self.count - 1]);
    }

    /// Widens the rows that each span reaches; where row 0 of each image would be in the scratch.
    fn widen_spans(
        &mut self,
        source: Source,
        phase: &Reach,
        inputs: usize,
        spans: &[(usize, Range<usize>)],
    ) -> Vec<*const u8> {
        let values = |reach: &Range<usize>| reach.len().saturating_sub(1) * source.width + inputs;
        let reaches: Vec<_> = spans.iter().map(|span| phase.reach(&span.1)).collect();
        grow(&mut self.rows, reaches.iter().map(values).sum());
        let mut at = 0;
        let mut images = Vec::with_capacity(spans.len());
        for (&(image, _), reach) in spans.iter().zip(&reaches) {
            if !reach.is_empty() {
                let from = &source.data[(image * source.rows + reach.start) * source.width..][..values(reach)];
                // SAFETY: the unit was chosen on a machine with AVX-512; the scratch has room.
                unsafe { widen_row(from.as_ptr(), self.rows.as_mut_ptr().add(at), from.len()) };
            }
            images.push(self.rows.as_ptr().wrapping_add(at).wrapping_sub(reach.start * source.width).cast());
            at += values(reach);
        }
        images
    }

    /// Widens the row of each tap and pixel by itself, where spans would hold many rows that nothing reads.
    fn widen_each(
        &mut self,
        source: Source,
        phase: &Reach,
        inputs: usize,
        spans: &[(usize, Range<usize>)],
        side_by_side: bool,
    ) {
        grow(&mut self.rows, phase.taps.len() * self.count * inputs);
        let owners: Vec<usize> = match side_by_side {
            true => (0..self.count).map(|i| spans[i % spans.len()].0).collect(),
            false => spans.iter().flat_map(|span| std::iter::repeat_n(span.0, span.1.len())).collect(),
        };
        let (zeros, mut at) = (self.zeros(), self.rows.as_mut_ptr());
        for rows in phase.source.chunks_exact(phase.pixels) {
            for (image, &(_, place)) in owners.iter().zip(&self.pixels) {
                self.from.push(match rows[place] {
                    -1 => zeros,
                    row => {
                        let row = &source.data[(image * source.rows + row as usize) * source.width..][..inputs];
                        // SAFETY: as above; there is room for a row of each tap and pixel.
                        unsafe { widen_row(row.as_ptr(), at, inputs) };
                        at.cast_const().cast()
                    }
                });
                at = at.wrapping_add(inputs);
            }
            self.from.extend([self.from[self.from.len() - 1]; MOST - 1]);
        }
    }
}

/// Room for `len` values, whose contents do not matter.
fn grow(values: &mut Vec<f32>, len: usize) {
    if values.len() < len {
        values.resize(len, 0.0);
    }
}
