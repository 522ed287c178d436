//! Convolution of bf16 activations: products of bf16 values are added in f32, results rounded once. Weights are rounded to
//! bf16 while they are packed.
//!
//! With AVX-512 there are kernels on 32-bit words, in two kinds (`crate::words::Unit`): f32 multiply-adds on values that are
//! widened for a tile at a time, and products of pairs (`vdpbf16ps`) read where they lie. Which one is faster depends on
//! the processor. With multiply-adds, 3x3 kernels of stride 1 go through Winograd's algorithm in f32 (its transformed values would
//! not fit bf16). Other machines widen whole tensors and take the f32 convolution.

#[cfg(target_arch = "x86_64")]
mod gather;
#[cfg(target_arch = "x86_64")]
mod grad;
#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(target_arch = "x86_64")]
mod reach;
#[cfg(test)]
mod tests;

use half::bf16;

use super::cpu;
use super::geometry::Geometry;
use super::winograd;
use crate::dense::{narrow, round, widen};
use crate::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::words::unit::choose;

/// `y` `[n, oh, ow, o]` of `x` and `w`.
///
/// # Panics
/// If a slice has not its geometry's length.
pub(crate) fn forward(isa: Isa, g: &Geometry, x: &[bf16], w: &[f32]) -> Vec<bf16> {
    if winograd::suits(g) && !pairs(isa) {
        return winograd::forward(isa, g, x, &round(w));
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(unit) = choose(isa) {
        return x86::forward(unit, g, x, w);
    }
    narrow(&cpu::forward(isa, g, &widen(x), &round(w)))
}

/// The gradient for `x`, `[n, h, w, c]`, of the output's gradient `dy`; plus `add`, which has that shape.
///
/// # Panics
/// If a slice has not its geometry's length.
pub(crate) fn input_grad(isa: Isa, g: &Geometry, w: &[f32], dy: &[bf16], add: Option<&[bf16]>) -> Vec<bf16> {
    if winograd::suits(g) && !pairs(isa) {
        return winograd::input_grad(isa, g, &round(w), dy, add);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(unit) = choose(isa) {
        return x86::input_grad(unit, g, w, dy, add);
    }
    let add = add.map(widen);
    narrow(&cpu::input_grad(isa, g, &round(w), &widen(dy), add.as_deref()))
}

/// The gradient for `w`, `[o, kh, kw, c]`, of the output's gradient `dy`.
///
/// # Panics
/// If a slice has not its geometry's length.
pub(crate) fn weight_grad(isa: Isa, g: &Geometry, x: &[bf16], dy: &[bf16]) -> Vec<f32> {
    if winograd::suits_weight_grad(g) && !pairs(isa) {
        return winograd::weight_grad(isa, g, x, dy);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(unit) = choose(isa) {
        return x86::weight_grad(unit, g, x, dy);
    }
    cpu::weight_grad(isa, g, &widen(x), &widen(dy))
}

/// Whether products of pairs run here. Where they do not, Winograd's algorithm saves more than it costs.
fn pairs(isa: Isa) -> bool {
    #[cfg(target_arch = "x86_64")]
    return choose(isa) == Some(crate::words::Unit::Dot);
    #[cfg(not(target_arch = "x86_64"))]
    return isa == Isa::Avx512Bf16;
}

/// The three passes on words.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use half::bf16;
    use rayon::prelude::*;

    use super::gather::{Source, gather};
    use super::grad::{self, Rows};
    use super::pack::Packed;
    use super::reach::Reach;
    use crate::conv2d::geometry::Geometry;
    use crate::words::Unit;

    pub(super) fn forward(unit: Unit, g: &Geometry, x: &[bf16], w: &[f32]) -> Vec<bf16> {
        let taps = g.kh * g.kw;
        assert!(x.len() == g.n * g.h * g.w * g.c && w.len() == g.o * taps * g.c, "conv2d: lengths");
        let to = [g.oh * g.ow, g.o];
        if borders(g) {
            let (bordered, phase) = g.bordered();
            let packed = Packed::new(unit, w, &phase.taps, g.kw * g.c, g.o, [taps * g.c, g.kw * g.c, 1]);
            let source = Source { data: &border(g, x), rows: bordered.h * bordered.w, width: g.c };
            return gather(unit, g.n, source, &[(Reach::new(phase), packed)], None, to);
        }
        let phase = g.forward_phase();
        let packed = Packed::new(unit, w, &phase.taps, g.c, g.o, [taps * g.c, g.c, 1]);
        let source = Source { data: x, rows: g.h * g.w, width: g.c };
        gather(unit, g.n, source, &[(Reach::new(phase), packed)], None, to)
    }

    pub(super) fn input_grad(unit: Unit, g: &Geometry, w: &[f32], dy: &[bf16], add: Option<&[bf16]>) -> Vec<bf16> {
        let taps = g.kh * g.kw;
        assert!(dy.len() == g.n * g.oh * g.ow * g.o && w.len() == g.o * taps * g.c, "conv2d: lengths");
        assert!(add.is_none_or(|add| add.len() == g.n * g.h * g.w * g.c), "conv2d: lengths");
        let pack = |phase| {
            let phase = Reach::new(phase);
            let packed = Packed::new(unit, w, &phase.taps, g.o, g.c, [1, g.c, taps * g.c]);
            (phase, packed)
        };
        let phases: Vec<_> = g.backward_phases().into_iter().map(pack).collect();
        let source = Source { data: dy, rows: g.oh * g.ow, width: g.o };
        gather(unit, g.n, source, &phases, add, [g.h * g.w, g.c])
    }

    pub(super) fn weight_grad(unit: Unit, g: &Geometry, x: &[bf16], dy: &[bf16]) -> Vec<f32> {
        assert!(x.len() == g.n * g.h * g.w * g.c && dy.len() == g.n * g.oh * g.ow * g.o, "conv2d: lengths");
        if borders(g) {
            let (bordered, phase) = g.bordered();
            let (x, rows) = (&border(g, x)[..], bordered.h * bordered.w);
            let rows = Rows { x, rows, width: g.c, inputs: g.kw * g.c, dy, outputs: g.o };
            return grad::weight_grad(unit, g.n, &phase, rows);
        }
        let rows = Rows { x, rows: g.h * g.w, width: g.c, inputs: g.c, dy, outputs: g.o };
        grad::weight_grad(unit, g.n, &g.forward_phase(), rows)
    }

    /// Whether so few channels go with a tap that a copy with a border, where a kernel's row is one tap, is worth its time.
    fn borders(g: &Geometry) -> bool {
        g.c < 16 && g.kw > 1
    }

    /// The images with `padding` zeros on each side.
    fn border(g: &Geometry, x: &[bf16]) -> Vec<bf16> {
        let (width, row) = ((g.w + 2 * g.padding) * g.c, g.w * g.c);
        let mut out = vec![bf16::ZERO; g.n * (g.h + 2 * g.padding) * width];
        out.par_chunks_mut((g.h + 2 * g.padding) * width).zip(x.par_chunks(g.h * row)).for_each(|(out, x)| {
            for (out, x) in out.chunks_exact_mut(width).skip(g.padding).zip(x.chunks_exact(row)) {
                out[g.padding * g.c..][..row].copy_from_slice(x);
            }
        });
        out
    }
}
