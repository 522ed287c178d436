//! The loops of the optimizers: one pass over weight, gradient and buffer (LARS: a second one before it, for the norms).
//!
//! Chunks are of fixed size and their sums are added in order: the result is the same for any thread count.

use rayon::prelude::*;

/// Elements of a chunk: three f32 streams of this length fit the second-level cache.
const CHUNK: usize = 1 << 14;

/// f32 or f64, as the update rules need them.
pub(super) trait Real:
    Copy + Send + Sync + std::ops::Add<Output = Self> + std::ops::Mul<Output = Self> + std::ops::Sub<Output = Self>
{
    /// The nearest value.
    fn of(v: f64) -> Self;
    /// The value itself.
    fn wide(self) -> f64;
}

impl Real for f32 {
    fn of(v: f64) -> Self {
        v as f32
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    fn of(v: f64) -> Self {
        v
    }
    fn wide(self) -> f64 {
        self
    }
}

/// The rule that every optimizer here ends in, for each element:
///
/// ```text
/// dp = scale (g + decay w);  b = momentum b + inside dp;  w -= outside (b, or with nesterov dp + momentum b)
/// ```
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) decay: f64,
    pub(super) scale: f64,
    pub(super) momentum: f64,
    pub(super) nesterov: bool,
    pub(super) inside: f64,
    pub(super) outside: f64,
}

/// Applies the rule; without a buffer, `b` is `inside dp` and is forgotten.
pub(super) fn apply<T: Real>(rule: &Rule, w: &mut [T], g: &[T], buffer: Option<&mut [T]>) {
    let [decay, scale, momentum] = [rule.decay, rule.scale, rule.momentum].map(T::of);
    let [inside, outside] = [rule.inside, rule.outside].map(T::of);
    let nesterov = rule.nesterov;
    // Without decay the weight must not be read into dp: 0 times infinity is NaN.
    let gradient = |g: T, w: T| scale * if rule.decay == 0.0 { g } else { g + decay * w };
    match buffer {
        None => for_chunks(w.len(), w, g, &mut [], |w, g, _| {
            for (w, &g) in w.iter_mut().zip(g) {
                *w = *w - outside * (inside * gradient(g, *w));
            }
        }),
        Some(buffer) => for_chunks(w.len(), w, g, buffer, |w, g, b| {
            for ((w, &g), b) in w.iter_mut().zip(g).zip(b) {
                let dp = inside * gradient(g, *w);
                *b = momentum * *b + dp;
                *w = *w - outside * if nesterov { dp + momentum * *b } else { *b };
            }
        }),
    }
}

/// `target = tau target + (1 - tau) online`.
pub(super) fn ema<T: Real>(target: &mut [T], online: &[T], tau: f64) {
    let (keep, take) = (T::of(tau), T::of(1.0 - tau));
    for_chunks(target.len(), target, online, &mut [], |target, online, _| {
        for (t, &o) in target.iter_mut().zip(online) {
            *t = keep * *t + take * o;
        }
    });
}

/// The Euclidean norms of `w`, `g` and `g + decay w`.
pub(super) fn norms<T: Real>(w: &[T], g: &[T], decay: f64) -> [f64; 3] {
    let chunk = |(w, g): (&[T], &[T])| {
        const LANES: usize = 8;
        let mut lanes = [[0f64; 3]; LANES];
        for (w, g) in w.chunks(LANES).zip(g.chunks(LANES)) {
            for ((lane, w), g) in lanes.iter_mut().zip(w).zip(g) {
                let (w, g) = (w.wide(), g.wide());
                let both = g + decay * w;
                *lane = [lane[0] + w * w, lane[1] + g * g, lane[2] + both * both];
            }
        }
        lanes.iter().fold([0f64; 3], |s, l| [s[0] + l[0], s[1] + l[1], s[2] + l[2]])
    };
    let sums: Vec<[f64; 3]> = if w.len() <= CHUNK {
        vec![chunk((w, g))]
    } else {
        w.par_chunks(CHUNK).zip(g.par_chunks(CHUNK)).map(chunk).collect()
    };
    sums.iter().fold([0f64; 3], |s, c| [s[0] + c[0], s[1] + c[1], s[2] + c[2]]).map(f64::sqrt)
}

/// Whether any value is NaN or infinite.
pub(super) fn any_non_finite<T: Real>(values: &[T]) -> bool {
    // Without a branch in the loop, so that it becomes vector code.
    let bad = |chunk: &[T]| !chunk.iter().fold(true, |fine, v| fine & v.wide().is_finite());
    if values.len() <= CHUNK { bad(values) } else { values.par_chunks(CHUNK).any(bad) }
}

fn for_chunks<T: Real>(
    n: usize,
    w: &mut [T],
    g: &[T],
    b: &mut [T],
    each: impl Fn(&mut [T], &[T], &mut [T]) + Sync + Send,
) {
    if n <= CHUNK {
        // A small tensor is done before another thread would wake up.
        each(w, g, b)
    } else if b.is_empty() {
        w.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).for_each(|(w, g)| each(w, g, &mut []));
    } else {
        let chunks = w.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).zip(b.par_chunks_mut(CHUNK));
        chunks.for_each(|((w, g), b)| each(w, g, b));
    }
}
