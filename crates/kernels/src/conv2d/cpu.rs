//! Convolution on slices, channels last, without an image-to-column copy.
//!
//! Forward pass and input gradient are one routine, [`gather`]: an output pixel is a sum over taps of a row of `src`
//! (the input, or the output's gradient) times a matrix of weights. A [`Phase`] says which source row belongs to which
//! output pixel and tap; a stride s splits the input gradient into s x s phases, each with its own taps, so nothing
//! is multiplied by the zeros that a strided convolution leaves between its taps.
//! The weight gradient, [`weight_grad`], adds the outer products of source rows and gradient rows.
//!
//! Pixels of the whole batch are one list, cut into fixed tiles: tasks, and the order of every sum, depend on shapes
//! alone, so the result is the same on any number of threads. The inner loops are chosen once per call, by [`Isa`].

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::portable;
use crate::isa::Isa;

/// Output pixels of a task: a multiple of every micro-kernel's pixels, and few enough for the second-level cache.
pub(super) const TILE: usize = 240;
/// Pixels whose products the weight gradient adds before it goes to the next tap.
pub(super) const GRAD_TILE: usize = 128;
/// Output channels side by side in packed weights.
pub(super) const BLOCK: usize = 64;

/// The sizes of a convolution: `x` `[n, h, w, c]`, weights `[o, kh, kw, c]`, `y` `[n, oh, ow, o]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) n: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) c: usize,
    pub(crate) o: usize,
    pub(crate) kh: usize,
    pub(crate) kw: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) oh: usize,
    pub(crate) ow: usize,
}

/// One tap of a phase: its place in the kernel, and where its source row lies relative to the pixel's.
struct Tap {
    index: usize,
    down: isize,
    right: isize,
}

/// The output pixels that share a set of taps, and where they and their sources lie.
pub(super) struct Phase {
    /// Pixels of this phase in one image.
    pub(super) pixels: usize,
    /// For each pixel of one image, its row in the output image.
    pub(super) out: Vec<u32>,
    /// `[taps, pixels]`: the source row in the source image, or -1 where it is padding.
    pub(super) source: Vec<i32>,
    /// The place of each tap in the kernel.
    pub(super) taps: Vec<usize>,
}

impl Phase {
    /// `from` + a * `step` for a < `count` are the output rows (`count`s and `from`s are of rows, then columns); the
    /// source of pixel (a, b) for a tap is (a, b) * `source_step` + (down, right).
    fn new(
        from: [usize; 2],
        step: usize,
        count: [usize; 2],
        out_width: usize,
        source: [usize; 2],
        source_step: usize,
        taps: &[Tap],
    ) -> Self {
        let pixels = count[0] * count[1];
        let mut out = Vec::with_capacity(pixels);
        for a in 0..count[0] {
            out.extend((0..count[1]).map(|b| ((from[0] + a * step) * out_width + from[1] + b * step) as u32));
        }
        let mut table = Vec::with_capacity(pixels * taps.len());
        for tap in taps {
            for a in 0..count[0] {
                let row = (a * source_step) as isize + tap.down;
                table.extend((0..count[1]).map(|b| {
                    let col = (b * source_step) as isize + tap.right;
                    let inside = (0..source[0] as isize).contains(&row) && (0..source[1] as isize).contains(&col);
                    if inside { (row * source[1] as isize + col) as i32 } else { -1 }
                }));
            }
        }
        Self { pixels, out, source: table, taps: taps.iter().map(|t| t.index).collect() }
    }

    /// Whether pixel p of a batch reads source row p and writes output row p, with a single tap: a matrix product.
    pub(super) fn is_identity(&self) -> bool {
        self.taps.len() == 1
            && self.source.iter().zip(&self.out).enumerate().all(|(i, (&s, &o))| s == i as i32 && o == i as u32)
    }
}

impl Geometry {
    /// The size of the output for these sizes of input, kernel, stride and padding, if there is one.
    pub(crate) fn out_size(input: usize, kernel: usize, stride: usize, padding: usize) -> Option<usize> {
        Some((input + 2 * padding).checked_sub(kernel)? / stride + 1)
    }

    /// The forward pass's only phase.
    fn forward_phase(&self) -> Phase {
        let taps: Vec<Tap> = (0..self.kh * self.kw)
            .map(|index| Tap {
                index,
                down: (index / self.kw) as isize - self.padding as isize,
                right: (index % self.kw) as isize - self.padding as isize,
            })
            .collect();
        Phase::new([0, 0], 1, [self.oh, self.ow], self.ow, [self.h, self.w], self.stride, &taps)
    }

    /// The input gradient's phases: input pixel i gets from output pixel (i + padding - tap) / stride where that is whole.
    fn backward_phases(&self) -> Vec<Phase> {
        let s = self.stride as isize;
        let offsets = |start: usize, kernel: usize| -> Vec<(usize, isize)> {
            (0..kernel)
                .map(|k| (k, (start + self.padding) as isize - k as isize))
                .filter(|(_, d)| d.rem_euclid(s) == 0)
                .map(|(k, d)| (k, d.div_euclid(s)))
                .collect()
        };
        let mut phases = Vec::new();
        for top in 0..self.stride.min(self.h) {
            for left in 0..self.stride.min(self.w) {
                let mut taps = Vec::new();
                for &(i, down) in &offsets(top, self.kh) {
                    for &(j, right) in &offsets(left, self.kw) {
                        taps.push(Tap { index: i * self.kw + j, down, right });
                    }
                }
                let count = [(self.h - top).div_ceil(self.stride), (self.w - left).div_ceil(self.stride)];
                phases.push(Phase::new([top, left], self.stride, count, self.w, [self.oh, self.ow], 1, &taps));
            }
        }
        phases
    }
}

/// Weights for one phase, in blocks of [`BLOCK`] output channels: `[blocks][taps][inputs][lanes(block)]`, zero-padded.
pub(super) struct Packed {
    pub(super) data: Vec<f32>,
    pub(super) taps: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// What the width of the last block is rounded up to.
    lanes: usize,
}

impl Packed {
    /// `at(output, tap, input)` is `w[output * strides[0] + tap * strides[1] + input * strides[2]]`.
    fn new(w: &[f32], taps: &[usize], inputs: usize, outputs: usize, strides: [usize; 3], lanes: usize) -> Self {
        let mut packed = Self { data: Vec::new(), taps: taps.len(), inputs, outputs, lanes };
        let rows = taps.len() * inputs;
        packed.data = vec![0.0; (0..packed.blocks()).map(|b| rows * packed.width(b)).sum()];
        packed.data.par_chunks_mut((rows * BLOCK).max(1)).enumerate().for_each(|(block, out)| {
            let (first, used) = (block * BLOCK, (outputs - block * BLOCK).min(BLOCK));
            let width = used.next_multiple_of(lanes);
            for (t, &tap) in taps.iter().enumerate() {
                // In squares of 16, so that a transposing copy stays in the first-level cache.
                for low in (0..inputs).step_by(16) {
                    for first_k in (0..used).step_by(16) {
                        for i in low..(low + 16).min(inputs) {
                            let from = first * strides[0] + tap * strides[1] + i * strides[2];
                            let row = &mut out[(t * inputs + i) * width..][..used];
                            for (k, v) in row.iter_mut().enumerate().skip(first_k).take(16) {
                                *v = w[from + k * strides[0]];
                            }
                        }
                    }
                }
            }
        });
        packed
    }

    pub(super) fn blocks(&self) -> usize {
        self.outputs.div_ceil(BLOCK)
    }

    /// The channels of a block.
    pub(super) fn used(&self, block: usize) -> usize {
        (self.outputs - block * BLOCK).min(BLOCK)
    }

    /// The channels of a block with its padding.
    pub(super) fn width(&self, block: usize) -> usize {
        self.used(block).next_multiple_of(self.lanes)
    }

    /// The weights of a block: `[taps * inputs, width(block)]`.
    pub(super) fn block(&self, block: usize) -> &[f32] {
        let rows = self.taps * self.inputs;
        &self.data[block * BLOCK * rows..][..rows * self.width(block)]
    }
}

/// Where tasks write: each writes its own pixels, whole rows, and every row is written once.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    start: *mut f32,
    rows: usize,
    width: usize,
}

// SAFETY: tasks on different threads write different rows (the phases partition an image's pixels, tiles a phase's).
unsafe impl Send for Rows {}
// SAFETY: as above; nothing reads through it.
unsafe impl Sync for Rows {}

impl Rows {
    /// The first element of a row.
    pub(super) fn row(self, row: usize) -> *mut f32 {
        assert!(row < self.rows);
        // SAFETY: the row lies inside the allocation of `rows * width` elements.
        unsafe { self.start.add(row * self.width) }
    }
}

/// Writes the pixels of `phases` of `images` images: every output row is the sum over taps of a source row times weights,
/// plus the same row of `add`.
fn gather(
    isa: Isa,
    images: usize,
    [source_rows, out_rows]: [usize; 2],
    source: &[f32],
    phases: &[(Phase, Packed)],
    add: Option<&[f32]>,
    outputs: usize,
) -> Vec<f32> {
    let len = images * out_rows * outputs;
    let mut y: Vec<f32> = Vec::with_capacity(len);
    let rows = Rows { start: y.as_mut_ptr(), rows: images * out_rows, width: outputs };
    for (phase, weights) in phases {
        let pixels = images * phase.pixels;
        let identity = phase.is_identity();
        (0..pixels.div_ceil(TILE)).into_par_iter().for_each(|tile| {
            let pixels = tile * TILE..((tile + 1) * TILE).min(pixels);
            match isa {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: this set was detected; tables and weights were made for these sizes in this module.
                Isa::Avx512 | Isa::Avx512Bf16 => unsafe {
                    avx512::tile(source, source_rows, phase, weights, add, rows, out_rows, pixels)
                },
                _ => portable::tile(source, source_rows, phase, identity, weights, add, rows, out_rows, pixels),
            }
        });
    }
    // SAFETY: the phases partition the pixels of an image, the tiles a phase's pixels, and each tile wrote its rows whole.
    unsafe { y.set_len(len) };
    y
}

fn lanes(isa: Isa) -> usize {
    if isa < Isa::Avx512 { 1 } else { 16 }
}

/// `y` `[n, oh, ow, o]` of `x` and `w`.
///
/// # Panics
/// If a slice has not its geometry's length.
pub(crate) fn forward(isa: Isa, g: &Geometry, x: &[f32], w: &[f32]) -> Vec<f32> {
    let taps = g.kh * g.kw;
    assert!(x.len() == g.n * g.h * g.w * g.c && w.len() == g.o * taps * g.c, "conv2d: lengths");
    let phase = g.forward_phase();
    let packed = Packed::new(w, &phase.taps, g.c, g.o, [taps * g.c, g.c, 1], lanes(isa));
    gather(isa, g.n, [g.h * g.w, g.oh * g.ow], x, &[(phase, packed)], None, g.o)
}

/// The gradient for `x`, `[n, h, w, c]`, of the output's gradient `dy`; plus `add`, which has that shape.
///
/// # Panics
/// If a slice has not its geometry's length.
pub(crate) fn input_grad(isa: Isa, g: &Geometry, w: &[f32], dy: &[f32], add: Option<&[f32]>) -> Vec<f32> {
    let taps = g.kh * g.kw;
    assert!(dy.len() == g.n * g.oh * g.ow * g.o && w.len() == g.o * taps * g.c, "conv2d: lengths");
    assert!(add.is_none_or(|add| add.len() == g.n * g.h * g.w * g.c), "conv2d: lengths");
    let pack = |phase: Phase| {
        let packed = Packed::new(w, &phase.taps, g.o, g.c, [1, g.c, taps * g.c], lanes(isa));
        (phase, packed)
    };
    let phases: Vec<_> = g.backward_phases().into_iter().map(pack).collect();
    gather(isa, g.n, [g.oh * g.ow, g.h * g.w], dy, &phases, add, g.c)
}

/// The gradient for `w`, `[o, kh, kw, c]`, of the output's gradient `dy`.
///
/// # Panics
/// If a slice has not its geometry's length.
pub(crate) fn weight_grad(isa: Isa, g: &Geometry, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let taps = g.kh * g.kw;
    assert!(x.len() == g.n * g.h * g.w * g.c && dy.len() == g.n * g.oh * g.ow * g.o, "conv2d: lengths");
    let phase = g.forward_phase();
    let pixels = g.n * phase.pixels;
    // A task adds one chunk of pixels for one block of output channels. Enough tasks for many cores, but chunks long
    // enough to be worth their partial sum. Both counts follow from shapes, so the order of the sum does too.
    let blocks = g.o.div_ceil(BLOCK);
    let chunks = 64usize.div_ceil(blocks).min(pixels.div_ceil(16 * GRAD_TILE)).max(1);
    let chunk = pixels.div_ceil(chunks).next_multiple_of(GRAD_TILE);
    let chunks = pixels.div_ceil(chunk);
    let size = taps * g.c * BLOCK;
    // [blocks][chunks][taps, c, BLOCK]
    let mut partial = vec![0f32; blocks * chunks * size];
    partial.par_chunks_mut(size).enumerate().for_each(|(task, sum)| {
        let (block, part) = (task / chunks, task % chunks);
        let pixels = part * chunk..((part + 1) * chunk).min(pixels);
        let outputs = block * BLOCK..((block + 1) * BLOCK).min(g.o);
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this set was detected; lengths were asserted above; `sum` has `[taps, c, BLOCK]` elements.
            Isa::Avx512 | Isa::Avx512Bf16 => unsafe { avx512::weight_grad(g, &phase, x, dy, pixels, outputs, sum) },
            _ => portable::weight_grad(g, &phase, x, dy, pixels, outputs, sum),
        }
    });
    let mut dw = vec![0f32; g.o * taps * g.c];
    dw.par_chunks_mut(taps * g.c).enumerate().for_each(|(o, row)| {
        let parts = &partial[o / BLOCK * chunks * size..][..chunks * size];
        for part in parts.chunks_exact(size) {
            for (v, &p) in row.iter_mut().zip(part[o % BLOCK..].iter().step_by(BLOCK)) {
                *v += p;
            }
        }
    });
    dw
}
