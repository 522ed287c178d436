//! Which multiplier this machine's kernels for bf16 use.

use std::arch::x86_64::__cpuid;
use std::sync::OnceLock;

use super::Unit;
use crate::isa::Isa;

/// The multiplier of bf16 values under this instruction set, if it has kernels for them.
///
/// A processor that has `vdpbf16ps` need not be good at it: the Intel cores that were measured start one every two cycles, and two
/// f32 multiply-adds every cycle, which makes half the products. Others are taken to be good at it; none was measured.
/// The two round differently, so the choice is a rule and not a measurement: a run that is resumed takes the same.
/// `DIPTYCH_ISA=avx512_bf16`, which asks for pairs by name, and `avx512` decide without the rule.
pub(crate) fn choose(isa: Isa) -> Option<Unit> {
    static UNIT: OnceLock<Unit> = OnceLock::new();
    match isa {
        Isa::Avx512Bf16 => Some(*UNIT.get_or_init(|| match std::env::var("DIPTYCH_ISA").as_deref() {
            Ok("avx512_bf16") => Unit::Dot,
            _ if is_intel() => Unit::Fma,
            _ => Unit::Dot,
        })),
        Isa::Avx512 => Some(Unit::Fma),
        _ => None,
    }
}

/// Whether the processor says that Intel made it.
fn is_intel() -> bool {
    let id = __cpuid(0);
    [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
}
