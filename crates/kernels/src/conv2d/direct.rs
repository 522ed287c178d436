//! Convolution without transforms: an output row is a sum over taps of a source row times a matrix of weights.

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::geometry::{Geometry, Phase, Source};
use super::pack::Packed;
use super::portable;
use crate::isa::Isa;

/// The most output pixels of a task: few enough that their rows of sources and results stay in the second-level cache.
pub(super) const TILE: usize = 240;
/// Tasks that a call is cut into where its size allows, for even shares and for machines of many cores.
pub(super) const TASKS: usize = 32;

/// Where tasks write: each writes its own pixels, whole rows, and every row is written once.
#[derive(Clone, Copy)]
pub(super) struct Rows<T = f32> {
    start: *mut T,
    rows: usize,
    width: usize,
}

// SAFETY: tasks on different threads write different rows (the phases partition an image's pixels, tiles a phase's).
unsafe impl<T: Send> Send for Rows<T> {}
// SAFETY: as above; nothing reads through it.
unsafe impl<T: Send> Sync for Rows<T> {}

impl<T: Copy> Rows<T> {
    /// The rows of `y`, whose capacity they fill.
    pub(super) fn new(y: &mut Vec<T>, rows: usize, width: usize) -> Self {
        assert!(rows * width <= y.capacity());
        Self { start: y.as_mut_ptr(), rows, width }
    }

    /// The first element of a row.
    pub(super) fn row(self, row: usize) -> *mut T {
        assert!(row < self.rows);
        // SAFETY: the row lies inside the allocation of `rows * width` elements.
        unsafe { self.start.add(row * self.width) }
    }
}

/// Writes the pixels of `phases` of `images` images: every output row is the sum over taps of a source row times weights,
/// plus the same row of `add`.
pub(super) fn gather(
    isa: Isa,
    images: usize,
    source: Source,
    phases: &[(Phase, Packed)],
    add: Option<&[f32]>,
    [out_rows, outputs]: [usize; 2],
) -> Vec<f32> {
    let len = images * out_rows * outputs;
    let mut y: Vec<f32> = Vec::with_capacity(len);
    let rows = Rows::new(&mut y, images * out_rows, outputs);
    for (phase, weights) in phases {
        let pixels = images * phase.pixels;
        let identity = phase.is_identity([source.rows, out_rows]) && source.width == weights.inputs;
        // Tiles of equal size; where they are few, the blocks of output channels are shared out too.
        let blocks = weights.blocks();
        let tiles = pixels.div_ceil(TILE.min((pixels * blocks).div_ceil(TASKS)).max(48));
        let tile = pixels.div_ceil(tiles).next_multiple_of(12);
        let tiles = pixels.div_ceil(tile);
        let group = blocks.div_ceil(TASKS.div_ceil(tiles));
        let groups = blocks.div_ceil(group);
        (0..tiles * groups).into_par_iter().with_max_len(1).for_each(|task| {
            let (first, part) = (task / groups * tile, task % groups * group);
            let (pixels, blocks) = (first..(first + tile).min(pixels), part..(part + group).min(blocks));
            match isa {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: this set was detected; tables and weights were made for these sizes in this module.
                Isa::Avx512 | Isa::Avx512Bf16 => unsafe {
                    avx512::tile(source, phase, identity, weights, add, rows, out_rows, pixels, blocks)
                },
                _ => portable::tile(source, phase, identity, weights, add, rows, out_rows, pixels, blocks),
            }
        });
    }
    // SAFETY: the phases partition the pixels of an image, the tasks a phase's pixels and blocks of channels, and each task
    // wrote its part whole.
    unsafe { y.set_len(len) };
    y
}

/// What the width of packed weights is rounded up to.
pub(super) fn lanes(isa: Isa) -> usize {
    if isa < Isa::Avx512 { 1 } else { 16 }
}

/// `y` `[n, oh, ow, o]` of `x` and `w`.
pub(super) fn forward(isa: Isa, g: &Geometry, x: &[f32], w: &[f32]) -> Vec<f32> {
    let taps = g.kh * g.kw;
    if borders(g) {
        let (bordered, phase) = g.bordered();
        let x = border(g, x);
        let packed = Packed::new(w, &phase.taps, g.kw * g.c, g.o, [taps * g.c, g.kw * g.c, 1], lanes(isa));
        let source = Source { data: &x, rows: bordered.h * bordered.w, width: g.c };
        return gather(isa, g.n, source, &[(phase, packed)], None, [g.oh * g.ow, g.o]);
    }
    let phase = g.forward_phase();
    let packed = Packed::new(w, &phase.taps, g.c, g.o, [taps * g.c, g.c, 1], lanes(isa));
    let source = Source { data: x, rows: g.h * g.w, width: g.c };
    gather(isa, g.n, source, &[(phase, packed)], None, [g.oh * g.ow, g.o])
}

/// The gradient for `x`, `[n, h, w, c]`, of the output's gradient `dy`; plus `add`, which has that shape.
pub(super) fn input_grad(isa: Isa, g: &Geometry, w: &[f32], dy: &[f32], add: Option<&[f32]>) -> Vec<f32> {
    let pack = |phase: Phase| {
        let packed = Packed::new(w, &phase.taps, g.o, g.c, [1, g.c, g.kh * g.kw * g.c], lanes(isa));
        (phase, packed)
    };
    let phases: Vec<_> = g.backward_phases().into_iter().map(pack).collect();
    let source = Source { data: dy, rows: g.oh * g.ow, width: g.o };
    gather(isa, g.n, source, &phases, add, [g.h * g.w, g.c])
}

/// Whether so few channels go with a tap that a copy with a border, where a kernel's row is one tap, is worth its time.
pub(super) fn borders(g: &Geometry) -> bool {
    g.c < 16 && g.kw > 1
}

/// The images with `padding` zeros on each side.
pub(super) fn border(g: &Geometry, x: &[f32]) -> Vec<f32> {
    let (width, row) = ((g.w + 2 * g.padding) * g.c, g.w * g.c);
    let mut out = vec![0f32; g.n * (g.h + 2 * g.padding) * width];
    out.par_chunks_mut((g.h + 2 * g.padding) * width).zip(x.par_chunks(g.h * row)).for_each(|(out, x)| {
        for (out, x) in out.chunks_exact_mut(width).skip(g.padding).zip(x.chunks_exact(row)) {
            out[g.padding * g.c..][..row].copy_from_slice(x);
        }
    });
    out
}
