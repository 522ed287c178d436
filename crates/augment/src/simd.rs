//! One loop, compiled for several instruction sets.
//!
//! The loops of this crate are plain Rust over bytes; what SSE2, which every x86-64 binary may use, lacks is wide integer
//! multiplication and conversion from bytes. [`vectorized!`] compiles the same function a second time for AVX2 and picks
//! at run time. Integers, and floats without fused multiplication: both give the same bytes.
#![allow(unsafe_code)] // calling a function compiled for AVX2 is unsafe: the machine must have it

/// Defines a function with a body that is compiled twice; everything it calls should be `#[inline(always)]`.
macro_rules! vectorized {
    ($(#[$meta:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        #[allow(unsafe_code)]
        fn $name($($arg: $type),*) {
            #[inline(always)]
            fn body($($arg: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $type),*) {
                    body($($arg),*);
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the machine has AVX2, as was just asked.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*);
        }
    };
}

pub(crate) use vectorized;
