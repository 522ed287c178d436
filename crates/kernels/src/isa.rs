//! One loop body, compiled for several instruction sets.
//!
//! The workspace is built for the baseline of its target (SSE2 on x86-64), so a plain loop gets 128-bit vectors. [`multiversion`]
//! compiles the same body for AVX2 and AVX-512 too and picks by what the machine has. Rust never contracts `a * b + c` into a
//! fused multiply-add by itself, so every version gives the same bits.

/// Defines functions whose body is compiled for AVX-512, AVX2 and the baseline and chosen at run time.
///
/// The choice costs a relaxed atomic load per call: call it on a block of rows, not on a row.
macro_rules! multiversion {
    ($($(#[$attr:meta])* $vis:vis fn $name:ident $(<$(const $generic:ident: $kind:ty),+>)? ($($arg:ident: $ty:ty),* $(,)?) $body:block)+) => {$(
        $(#[$attr])*
        $vis fn $name $(<$(const $generic: $kind),+>)? ($($arg: $ty),*) {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body $(<$(const $generic: $kind),+>)? ($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
                #[allow(clippy::too_many_arguments)]
                fn avx512 $(<$(const $generic: $kind),+>)? ($($arg: $ty),*) {
                    body $(::<$($generic),+>)? ($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                #[allow(clippy::too_many_arguments)]
                fn avx2 $(<$(const $generic: $kind),+>)? ($($arg: $ty),*) {
                    body $(::<$($generic),+>)? ($($arg),*)
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                {
                    // SAFETY: the machine has every feature that the function enables, asked in the line above.
                    return unsafe { avx512 $(::<$($generic),+>)? ($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the machine has AVX2, asked in the line above.
                    return unsafe { avx2 $(::<$($generic),+>)? ($($arg),*) };
                }
            }
            body $(::<$($generic),+>)? ($($arg),*)
        }
    )+};
}
pub(crate) use multiversion;
