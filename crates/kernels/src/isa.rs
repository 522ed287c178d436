//! Which instruction set the inner loops use, and one loop body compiled for several of them.
//!
//! The set is detected once per process. The environment variable `DIPTYCH_ISA` (portable, avx2, avx512 or avx512_bf16) lowers it,
//! so that tests can run every path that a machine has; it never raises it, and a value that is none of these is ignored.
//!
//! The workspace is built for the baseline of its target (SSE2 on x86-64), so a plain loop gets 128-bit vectors. [`multiversion`]
//! compiles the same body for AVX2 and AVX-512 too and picks by [`Isa::detect`]. Rust never contracts `a * b + c` into a
//! fused multiply-add by itself, so every version gives the same bits.

use std::sync::OnceLock;

/// The instruction sets that inner loops are written for, each with all that the ones before it have.
///
/// The products of the `gemm` crate stand outside of this: it picks its instructions by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Isa {
    /// What the target's baseline has.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, VL, BW and DQ: every machine with AVX-512 but Knights Landing.
    Avx512,
    /// Also the products of bf16 pairs.
    Avx512Bf16,
}

impl Isa {
    const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16];

    /// The best that this machine has and `DIPTYCH_ISA` allows.
    pub(crate) fn detect() -> Self {
        static ISA: OnceLock<Isa> = OnceLock::new();
        *ISA.get_or_init(|| Self::allowed(Self::machine(), std::env::var("DIPTYCH_ISA").ok().as_deref()))
    }

    /// The best that this machine has.
    fn machine() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq");
            return match avx512 {
                true if is_x86_feature_detected!("avx512bf16") => Self::Avx512Bf16,
                true => Self::Avx512,
                false => Self::Avx2,
            };
        }
        Self::Portable
    }

    /// The machine's set, lowered to the one asked for if that is lower and a name of one.
    fn allowed(machine: Self, asked: Option<&str>) -> Self {
        Self::ALL.into_iter().find(|isa| Some(isa.name()) == asked).map_or(machine, |asked| asked.min(machine))
    }

    /// The value of `DIPTYCH_ISA` that asks for this set.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512_bf16",
        }
    }

    /// Every set up to [`Isa::detect`]'s, for tests that run each path.
    #[cfg(test)]
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| *isa <= Self::detect())
    }
}

/// The instruction set that the inner loops of this process use: `portable`, `avx2`, `avx512` or `avx512_bf16`.
///
/// It is the best one that this machine has, or a lower one that the environment variable `DIPTYCH_ISA` names. Values of two
/// sets agree to rounding; within one, results are the same in every bit.
pub fn isa() -> &'static str {
    Isa::detect().name()
}

/// Defines functions whose body is compiled for AVX-512, AVX2 and the baseline and chosen at run time.
///
/// The choice costs an atomic load per call: call it on a block of rows, not on a row. Generic parameters are written
/// `<type T: Element, const RELU: bool>`, types first.
macro_rules! multiversion {
    ($($(#[$attr:meta])* $vis:vis fn $name:ident
        $(<$(type $element:ident: $bound:ident),* $(,)? $(const $generic:ident: $kind:ty),*>)?
        ($($arg:ident: $ty:ty),* $(,)?) $body:block)+) => {$(
        $(#[$attr])*
        $vis fn $name $(<$($element: $bound,)* $(const $generic: $kind),*>)? ($($arg: $ty),*) {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body $(<$($element: $bound,)* $(const $generic: $kind),*>)? ($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                use $crate::isa::Isa;

                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
                #[allow(clippy::too_many_arguments)]
                fn avx512 $(<$($element: $bound,)* $(const $generic: $kind),*>)? ($($arg: $ty),*) {
                    body $(::<$($element,)* $($generic),*>)? ($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                #[allow(clippy::too_many_arguments)]
                fn avx2 $(<$($element: $bound,)* $(const $generic: $kind),*>)? ($($arg: $ty),*) {
                    body $(::<$($element,)* $($generic),*>)? ($($arg),*)
                }
                match Isa::detect() {
                    // SAFETY: the machine has every feature that the function enables: they are part of these sets.
                    Isa::Avx512 | Isa::Avx512Bf16 => return unsafe { avx512 $(::<$($element,)* $($generic),*>)? ($($arg),*) },
                    // SAFETY: the machine has AVX2, which is part of this set.
                    Isa::Avx2 => return unsafe { avx2 $(::<$($element,)* $($generic),*>)? ($($arg),*) },
                    Isa::Portable => {}
                }
            }
            body $(::<$($element,)* $($generic),*>)? ($($arg),*)
        }
    )+};
}
pub(crate) use multiversion;

#[cfg(test)]
mod tests {
    use super::Isa;

    #[test]
    fn the_variable_lowers_and_never_raises() {
        assert_eq!(Isa::allowed(Isa::Avx512, None), Isa::Avx512);
        assert_eq!(Isa::allowed(Isa::Avx512, Some("portable")), Isa::Portable);
        assert_eq!(Isa::allowed(Isa::Avx512, Some("avx2")), Isa::Avx2);
        assert_eq!(Isa::allowed(Isa::Avx512, Some("avx512_bf16")), Isa::Avx512);
        assert_eq!(Isa::allowed(Isa::Avx2, Some("neon")), Isa::Avx2);
        assert_eq!(Isa::allowed(Isa::Avx2, Some("")), Isa::Avx2);
        for isa in Isa::ALL {
            assert_eq!(Isa::allowed(Isa::Avx512Bf16, Some(isa.name())), isa);
        }
    }
}
