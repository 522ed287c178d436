//! Which instruction set the inner loops use, and the loops that are written or compiled for each.
//!
//! The portable loops of this crate are plain Rust; [`vectorized!`] compiles them for AVX2 and AVX-512 too. What is worth it is written
//! again for AVX-512 with the byte permutes and byte products of Ice Lake and Zen 4, in `avx512`. All arithmetic is of integers, or of floats
//! whose every rounding is the same, so that all three give the same bytes.
//!
//! The environment variable `DIPTYCH_ISA` (portable, avx2, avx512 or avx512_bf16) lowers the set, as it does for the kernels of training; it never
//! raises it, and a value that is none of these is ignored.
#![allow(unsafe_code)] // loads and stores of vectors, and calls of functions compiled for a set that was detected

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
mod places;

/// An instruction set that this machine has: whoever holds one may call what was compiled for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Isa(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// What the target's baseline has.
    Portable,
    Avx2,
    /// AVX-512 F, VL, BW, DQ, VBMI and VNNI.
    Avx512,
}

impl Isa {
    /// The best that this machine has and `DIPTYCH_ISA` allows, detected once per process.
    pub(crate) fn detect() -> Self {
        static ISA: OnceLock<Isa> = OnceLock::new();
        *ISA.get_or_init(|| Self(allowed(machine(), std::env::var("DIPTYCH_ISA").ok().as_deref())))
    }

    /// Every set up to [`Isa::detect`]'s, for tests that run each path.
    #[cfg(test)]
    pub(crate) fn available() -> Vec<Self> {
        let all = [Level::Portable, Level::Avx2, Level::Avx512];
        all.into_iter().filter(|&level| level <= Self::detect().0).map(Self).collect()
    }

    /// The set that every machine has.
    #[cfg(test)]
    pub(crate) fn portable() -> Self {
        Self(Level::Portable)
    }

    #[inline(always)]
    pub(crate) fn has_avx2(self) -> bool {
        self.0 >= Level::Avx2
    }

    #[inline(always)]
    pub(crate) fn has_avx512(self) -> bool {
        self.0 >= Level::Avx512
    }
}

/// The best that this machine has.
fn machine() -> Level {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        let avx512 = is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512vnni");
        return if avx512 { Level::Avx512 } else { Level::Avx2 };
    }
    Level::Portable
}

/// The machine's set, lowered to the one asked for if that is lower and a name of one.
fn allowed(machine: Level, asked: Option<&str>) -> Level {
    match asked {
        Some("portable") => Level::Portable,
        Some("avx2") => machine.min(Level::Avx2),
        _ => machine,
    }
}

/// Defines a function with a body that is compiled for the baseline, for AVX2 and for AVX-512; its first argument is the [`Isa`] that chooses.
///
/// Everything that the body calls should be `#[inline(always)]`.
macro_rules! vectorized {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($isa:ident: Isa $(, $arg:ident: $type:ty)* $(,)?) $body:block) => {
        $(#[$meta])*
        #[allow(unsafe_code)]
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($isa: $crate::simd::Isa $(, $arg: $type)*) {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body($($arg: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $type),*) {
                    body($($arg),*);
                }
                #[target_feature(enable = "avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($arg: $type),*) {
                    body($($arg),*);
                }
                if $isa.has_avx512() {
                    // SAFETY: the machine has these parts of AVX-512: that is what the set says.
                    return unsafe { avx512($($arg),*) };
                }
                if $isa.has_avx2() {
                    // SAFETY: the machine has AVX2: that is what the set says.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*);
        }
    };
}

pub(crate) use places::{append_normalized, places};
pub(crate) use vectorized;

#[cfg(test)]
mod tests {
    use super::{Level, allowed};

    #[test]
    fn the_variable_lowers_and_never_raises() {
        let all = [Level::Portable, Level::Avx2, Level::Avx512];
        for machine in all {
            for (asked, most) in [("portable", all[0]), ("avx2", all[1]), ("avx512", all[2]), ("avx512_bf16", all[2])] {
                assert_eq!(allowed(machine, Some(asked)), machine.min(most), "{asked} on {machine:?}");
            }
            for nothing in [None, Some(""), Some("neon")] {
                assert_eq!(allowed(machine, nothing), machine);
            }
        }
    }
}
