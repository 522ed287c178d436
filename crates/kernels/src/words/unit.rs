//! Which multiplier this machine's kernels for bf16 use.

use std::arch::x86_64::*;
use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Instant;

use super::Unit;
use crate::isa::Isa;

/// The multiplier of bf16 values under this instruction set, if it has kernels for them.
///
/// A processor that has `vdpbf16ps` need not be good at it: Golden Cove cores start one every two cycles, and two f32
/// multiply-adds every cycle, which makes half the products; others start as many of the one as of the other, which
/// makes twice as many. So the machine is timed once, and `DIPTYCH_ISA=avx512_bf16` (which asks for it by name) or
/// `avx512` decides without.
pub(crate) fn choose(isa: Isa) -> Option<Unit> {
    static UNIT: OnceLock<Unit> = OnceLock::new();
    match isa {
        Isa::Avx512Bf16 => Some(*UNIT.get_or_init(|| match std::env::var("DIPTYCH_ISA").as_deref() {
            Ok("avx512_bf16") => Unit::Dot,
            // SAFETY: `isa` was detected.
            _ if unsafe { pairs_are_faster() } => Unit::Dot,
            _ => Unit::Fma,
        })),
        Isa::Avx512 => Some(Unit::Fma),
        _ => None,
    }
}

/// Whether a pair product takes less than two multiply-adds, by the shortest of several interleaved runs: ten
/// microseconds once per process, and far from the threshold on known processors (4 or 1).
#[target_feature(enable = "avx512f,avx512bf16")]
fn pairs_are_faster() -> bool {
    let one = black_box(_mm512_set1_ps(1.0));
    // SAFETY: both are 512 bits without a meaning of their own.
    let pair: __m512bh = unsafe { std::mem::transmute(black_box(_mm512_set1_epi32(0x3F80_3F80))) };
    let time = |f: &dyn Fn()| {
        let start = Instant::now();
        f();
        start.elapsed()
    };
    let mut best = [std::time::Duration::MAX; 2];
    for _ in 0..20 {
        let pairs = time(&|| {
            let mut sums = [one; 16];
            for _ in 0..32 {
                sums.iter_mut().for_each(|sum| *sum = _mm512_dpbf16_ps(*sum, pair, pair));
            }
            black_box(sums);
        });
        let singles = time(&|| {
            let mut sums = [one; 16];
            for _ in 0..32 {
                sums.iter_mut().for_each(|sum| *sum = _mm512_fmadd_ps(one, one, *sum));
            }
            black_box(sums);
        });
        best = [best[0].min(pairs), best[1].min(singles)];
    }
    best[0] < 2 * best[1]
}
