//! Seeded, portable randomness: every random number of Diptych comes from a [`Stream`].
//!
//! A stream is a function of a seed and a key, and of nothing else: not of the machine, the thread, or what was drawn
//! elsewhere. So the view of sample 17 in epoch 3 is the same whoever computes it, and a resumed run draws what an
//! unbroken one would have drawn.
//!
//! The generator is ChaCha8, a fixed algorithm; the distributions are written here, because libraries reserve the right
//! to change theirs between versions.
#![doc = include_str!("../README.md")]

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// One reproducible sequence of random numbers.
#[derive(Clone, Debug)]
pub struct Stream {
    generator: ChaCha8Rng,
    /// The second value of the last Box-Muller pair.
    spare_normal: Option<f64>,
}

impl Stream {
    /// The stream of `seed` under a key of numbers, such as (epoch, sample, view).
    ///
    /// Keys of different lengths give different streams: `[1]` is not `[1, 0]`.
    pub fn keyed(seed: u64, key: &[u64]) -> Self {
        let mut state = mix(seed ^ 0x6469_7074_7963_6800) ^ key.len() as u64;
        for &part in key {
            state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ mix(part.wrapping_add(0xd1b5_4a32_d192_ed03)));
        }
        let mut bytes = [0u8; 32];
        for (i, chunk) in bytes.chunks_exact_mut(8).enumerate() {
            chunk.copy_from_slice(
                &mix(state.wrapping_add((i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))).to_le_bytes(),
            );
        }
        Self { generator: ChaCha8Rng::from_seed(bytes), spare_normal: None }
    }

    /// The stream of `seed` under a name, such as a parameter's path.
    pub fn named(seed: u64, name: &str) -> Self {
        Self::keyed(seed, &[hash(name.as_bytes())])
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        self.generator.next_u64()
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [low, high); `low` where the two are equal.
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in 0..n, without bias (Lemire 2019, arXiv:1805.10941). Zero where n is zero.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        let threshold = n.wrapping_neg() % n;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(n);
            if wide as u64 >= threshold {
                return (wide >> 64) as u64;
            }
        }
    }

    /// True with probability `p`.
    pub fn bernoulli(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Standard normal (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        if let Some(value) = self.spare_normal.take() {
            return value;
        }
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        self.spare_normal = Some(radius * sin);
        radius * cos
    }

    /// Puts `items` into a uniformly random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }

    /// A random order of 0..n.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }
}

/// A 64-bit hash of bytes that never changes between versions and machines (FNV-1a, finished by [`Stream`]'s mixer).
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv =
        bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    mix(fnv)
}

/// The finaliser of SplitMix64: a bijection that spreads every bit of `x`.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change of these numbers would change every seeded run: it needs a new major version.
    #[test]
    fn streams_are_frozen() {
        let mut s = Stream::keyed(42, &[3, 17, 1]);
        assert_eq!([s.next_u64(), s.next_u64()], [2968880230340947345, 15558923892465403463]);
        assert_eq!(hash(b"layer1.0.conv1.weight"), 9302566498141135849);
    }

    #[test]
    fn different_keys_give_different_streams() {
        let first = |seed, key: &[u64]| Stream::keyed(seed, key).next_u64();
        let all = [
            first(0, &[]),
            first(0, &[0]),
            first(0, &[0, 0]),
            first(0, &[1]),
            first(1, &[0]),
            first(0, &[0, 1]),
            first(0, &[1, 0]),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(!all[i + 1..].contains(a), "key {i} repeats");
        }
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut s = Stream::keyed(1, &[]);
        let n = 200_000;
        let (mut mean, mut square, mut cube) = (0.0, 0.0, 0.0);
        for _ in 0..n {
            let x = s.normal();
            mean += x;
            square += x * x;
            cube += x * x * x;
        }
        let n = f64::from(n);
        assert!((mean / n).abs() < 0.01 && (square / n - 1.0).abs() < 0.02 && (cube / n).abs() < 0.04);
        let uniform: f64 = (0..100_000).map(|_| s.range(2.0, 4.0)).sum::<f64>() / 1e5;
        assert!((uniform - 3.0).abs() < 0.01);
    }

    #[test]
    fn below_reaches_every_value_evenly() {
        let mut s = Stream::keyed(2, &[]);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[s.below(7) as usize] += 1;
        }
        assert!(counts.iter().all(|&c| (9_500..10_500).contains(&c)), "{counts:?}");
        assert_eq!(s.below(0), 0);
        assert_eq!(s.below(1), 0);
    }

    #[test]
    fn a_permutation_holds_each_number_once() {
        let mut order = Stream::keyed(3, &[]).permutation(1000);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }
}
