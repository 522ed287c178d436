//! What the machine can do at most: loops of nothing but multiply-adds, to measure kernels against.
//!
//! The functions run on all of rayon's threads and return how many floating-point operations that was; the caller holds the
//! clock. A multiply-add counts as two.

/// Runs f32 fused multiply-adds, `rounds` times 16 vectors a thread, with the widest vectors that the machine has.
///
/// `None` where no loop of this kind is written for the machine.
pub fn f32_multiply_adds(rounds: usize) -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the machine has AVX-512F, asked in the line above.
            return Some(x86::on_all_threads(rounds, 16 * 2, |rounds| unsafe { x86::f32_avx512(rounds) }));
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the machine has AVX2 and FMA, asked in the line above.
            return Some(x86::on_all_threads(rounds, 8 * 2, |rounds| unsafe { x86::f32_avx2(rounds) }));
        }
    }
    let _ = rounds;
    None
}

/// Runs bf16 dot products that are summed in f32 (`vdpbf16ps`), `rounds` times 16 vectors a thread.
///
/// `None` where the machine has no such unit.
pub fn bf16_multiply_adds(rounds: usize) -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512f") {
        // SAFETY: the machine has AVX-512F and its BF16 extension, asked in the line above.
        return Some(x86::on_all_threads(rounds, 32 * 2, |rounds| unsafe { x86::bf16_avx512(rounds) }));
    }
    let _ = rounds;
    None
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Independent sums in flight: enough to hide the latency of two units (4 cycles each), few enough to stay in registers.
    const SUMS: usize = 16;

    /// Runs `body` on every thread; `per_vector` operations in each of its `rounds * SUMS` instructions.
    pub(super) fn on_all_threads(rounds: usize, per_vector: usize, body: impl Fn(usize) -> f32 + Sync) -> u64 {
        let threads = rayon::broadcast(|_| black_box(body(black_box(rounds)))).len();
        (threads * rounds * SUMS * per_vector) as u64
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn f32_avx512(rounds: usize) -> f32 {
        let (a, b) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.25)));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn f32_avx2(rounds: usize) -> f32 {
        let (a, b) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
        let mut sums = [_mm256_setzero_ps(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        sums.into_iter().map(|sum| _mm256_cvtss_f32(sum)).sum()
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn bf16_avx512(rounds: usize) -> f32 {
        let ones = _mm512_set1_ps(black_box(1.0));
        let (a, b) = (_mm512_cvtne2ps_pbh(ones, ones), _mm512_cvtne2ps_pbh(ones, ones));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, a, b);
            }
        }
        sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    /// By hand: x -> x / 2 + 1 / 4 tends to 1 / 2, in 16 sums of 16 (or 16 of which one lane is read) values.
    #[test]
    fn the_f32_loops_do_what_they_count() {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the machine has AVX-512F.
            assert_eq!(unsafe { x86::f32_avx512(100) }, 128.0);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the machine has AVX2 and FMA.
            assert_eq!(unsafe { x86::f32_avx2(100) }, 8.0);
            let per_thread = f32_multiply_adds(3).unwrap() / rayon::current_num_threads() as u64;
            assert!(per_thread == 3 * 16 * 32 || per_thread == 3 * 16 * 16, "{per_thread}");
        }
    }

    /// By hand: each round adds 1 * 1 + 1 * 1 to each of 16 x 16 values.
    #[test]
    fn the_bf16_loop_does_what_it_counts() {
        if is_x86_feature_detected!("avx512bf16") {
            // SAFETY: the machine has AVX-512F and its BF16 extension.
            assert_eq!(unsafe { x86::bf16_avx512(10) }, 10.0 * 2.0 * 256.0);
        }
    }
}
