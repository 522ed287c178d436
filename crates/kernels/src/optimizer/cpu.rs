//! The loops of the optimizers over the tensors of a whole step.
//!
//! Every tensor is cut into chunks of fixed size; the chunks of all tensors together are one parallel list of jobs, in which small
//! tensors share a job. One pass over weight, gradient and buffer; before it one over what must be known first: LARS asks for the norms
//! of weight and gradient, SGD only whether the gradient is finite, which a LARS norm says too. Sums of chunks are added in order: the
//! result is the same for any thread count.

use rayon::prelude::*;

use crate::isa::multiversion;

/// Elements of a job: three f32 streams of this length fit the second-level cache.
const CHUNK: usize = 1 << 14;
/// Partial sums of a chunk, kept apart and added in this order whatever the vector width.
const LANES: usize = 16;

/// f32 or f64, with the loops over one chunk.
pub(super) trait Real: Copy + Send + Sync {
    /// Adds the squares that `look` asks for: of w, and of the gradient.
    fn sums(look: Look, w: &[Self], g: &[Self], sums: &mut [f64; 2]);
    /// The rule on one chunk; an empty `b` is no buffer.
    fn update(rule: &Rule, w: &mut [Self], g: &[Self], b: &mut [Self]);
    /// `target = tau target + (1 - tau) online`.
    fn mix(target: &mut [Self], online: &[Self], tau: f64);
    /// Clears `fine` if a value is NaN or infinite.
    fn finite(values: &[Self], fine: &mut bool);
}

/// The loops for one type, each compiled for every instruction set.
macro_rules! real {
    ($t:ident, $module:ident) => {
        mod $module {
            use super::{LANES, Rule, multiversion};

            multiversion! {
                pub(super) fn squares(g: &[$t], sum: &mut f64) {
                    let mut lanes = [0f64; LANES];
                    let (chunks, rest) = g.as_chunks::<LANES>();
                    for g in chunks {
                        for (lane, &g) in lanes.iter_mut().zip(g) {
                            *lane += f64::from(g) * f64::from(g);
                        }
                    }
                    for (lane, &g) in lanes.iter_mut().zip(rest) {
                        *lane += f64::from(g) * f64::from(g);
                    }
                    *sum += lanes.iter().sum::<f64>();
                }

                /// Squares of w, and of g + decay w.
                pub(super) fn both(w: &[$t], g: &[$t], decay: f64, sums: &mut [f64; 2]) {
                    let (mut first, mut second) = ([0f64; LANES], [0f64; LANES]);
                    for (w, g) in w.chunks(LANES).zip(g.chunks(LANES)) {
                        for (((first, second), &w), &g) in first.iter_mut().zip(&mut second).zip(w).zip(g) {
                            let (w, g) = (f64::from(w), f64::from(g));
                            let g = g + decay * w;
                            *first += w * w;
                            *second += g * g;
                        }
                    }
                    sums[0] += first.iter().sum::<f64>();
                    sums[1] += second.iter().sum::<f64>();
                }

                /// Without decay the weight is not read into dp: 0 times infinity is NaN.
                pub(super) fn with_buffer<const DECAYS: bool, const NESTEROV: bool>(
                    rule: &Rule,
                    w: &mut [$t],
                    g: &[$t],
                    b: &mut [$t],
                ) {
                    let [decay, momentum] = [rule.decay as $t, rule.momentum as $t];
                    let [scale, inside, outside] = [rule.scale as $t, rule.inside as $t, rule.outside as $t];
                    for ((w, &g), b) in w.iter_mut().zip(g).zip(b) {
                        let dp = inside * (scale * if DECAYS { g + decay * *w } else { g });
                        *b = momentum * *b + dp;
                        *w -= outside * if NESTEROV { dp + momentum * *b } else { *b };
                    }
                }

                pub(super) fn without_buffer<const DECAYS: bool>(rule: &Rule, w: &mut [$t], g: &[$t]) {
                    let decay = rule.decay as $t;
                    let [scale, inside, outside] = [rule.scale as $t, rule.inside as $t, rule.outside as $t];
                    for (w, &g) in w.iter_mut().zip(g) {
                        *w -= outside * (inside * (scale * if DECAYS { g + decay * *w } else { g }));
                    }
                }

                pub(super) fn mix(target: &mut [$t], online: &[$t], tau: f64) {
                    let (keep, take) = (tau as $t, (1.0 - tau) as $t);
                    for (t, &o) in target.iter_mut().zip(online) {
                        *t = keep * *t + take * o;
                    }
                }

                /// Without a branch in the loop, so that it becomes vector code.
                pub(super) fn finite(values: &[$t], fine: &mut bool) {
                    *fine &= values.iter().fold(true, |fine, v| fine & v.is_finite());
                }
            }
        }

        impl Real for $t {
            fn sums(look: Look, w: &[Self], g: &[Self], sums: &mut [f64; 2]) {
                match look {
                    Look::Gradient => $module::squares(g, &mut sums[1]),
                    Look::Apart => {
                        $module::squares(w, &mut sums[0]);
                        $module::squares(g, &mut sums[1]);
                    }
                    Look::Together { decay } => $module::both(w, g, decay, sums),
                }
            }

            fn update(rule: &Rule, w: &mut [Self], g: &[Self], b: &mut [Self]) {
                match (b.is_empty(), rule.decay != 0.0, rule.nesterov) {
                    (true, true, _) => $module::without_buffer::<true>(rule, w, g),
                    (true, false, _) => $module::without_buffer::<false>(rule, w, g),
                    (false, true, true) => $module::with_buffer::<true, true>(rule, w, g, b),
                    (false, true, false) => $module::with_buffer::<true, false>(rule, w, g, b),
                    (false, false, true) => $module::with_buffer::<false, true>(rule, w, g, b),
                    (false, false, false) => $module::with_buffer::<false, false>(rule, w, g, b),
                }
            }

            fn mix(target: &mut [Self], online: &[Self], tau: f64) {
                $module::mix(target, online, tau);
            }

            fn finite(values: &[Self], fine: &mut bool) {
                $module::finite(values, fine);
            }
        }
    };
}

real!(f32, single);
real!(f64, double);

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

/// One tensor of a step.
pub(super) struct Item<'a, T> {
    pub(super) rule: Rule,
    pub(super) w: &'a mut [T],
    pub(super) g: &'a [T],
    /// Empty without momentum: `b` is then `inside dp` and is forgotten.
    pub(super) b: &'a mut [T],
}

/// What the first pass looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Look {
    /// Whether the gradient is finite.
    Gradient,
    /// The norms of `w` and `g`.
    Apart,
    /// The norms of `w` and `g + decay w`.
    Together {
        /// The factor before w.
        decay: f64,
    },
}

/// What the first pass saw in one tensor.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// The Euclidean norm of w; 0 if only the gradient was looked at.
    pub(super) weight: f64,
    /// The norm of g, or of g + decay w.
    pub(super) gradient: f64,
}

/// The first pass over tensors `(look, w, g)`: their norms; `Err(i)` if tensor i is the first whose gradient holds a NaN or an
/// infinity.
pub(super) fn look<T: Real>(tensors: &[(Look, &[T], &[T])]) -> Result<Vec<Seen>, usize> {
    let mut jobs = Jobs::default();
    for (i, (look, w, g)) in tensors.iter().enumerate() {
        for (w, g) in w.chunks(CHUNK).zip(g.chunks(CHUNK)) {
            jobs.push(g.len(), (i, *look, w, g));
        }
    }
    let sums: Vec<Vec<(usize, [f64; 2])>> = jobs
        .list
        .par_iter()
        .map(|job| {
            let one = |&(i, look, w, g): &(usize, Look, &[T], &[T])| {
                let mut sums = [0f64; 2];
                T::sums(look, w, g, &mut sums);
                (i, sums)
            };
            job.iter().map(one).collect()
        })
        .collect();
    let mut totals = vec![[0f64; 2]; tensors.len()];
    for (i, [w, g]) in sums.into_iter().flatten() {
        totals[i][0] += w;
        totals[i][1] += g;
    }
    for (i, [w, g]) in totals.iter().enumerate() {
        // A sum is finite when all values are; squares of f64 and the weight's own values may overflow it, so look again.
        if !(w + g).is_finite() && any_non_finite(&[tensors[i].2]).is_some() {
            return Err(i);
        }
    }
    Ok(totals.into_iter().map(|[w, g]| Seen { weight: w.sqrt(), gradient: g.sqrt() }).collect())
}

/// The second pass: every tensor by its rule.
pub(super) fn apply<T: Real>(items: Vec<Item<T>>) {
    let mut jobs = Jobs::default();
    for Item { rule, w, g, b } in items {
        let mut buffers = b.chunks_mut(CHUNK);
        for (w, g) in w.chunks_mut(CHUNK).zip(g.chunks(CHUNK)) {
            jobs.push(g.len(), (rule, w, g, buffers.next().unwrap_or_default()));
        }
    }
    jobs.list.par_iter_mut().flatten_iter().for_each(|(rule, w, g, b)| T::update(rule, w, g, b));
}

/// `target = tau target + (1 - tau) online` for each pair.
pub(super) fn ema<T: Real>(pairs: Vec<(&mut [T], &[T])>, tau: f64) {
    let mut jobs = Jobs::default();
    for (target, online) in pairs {
        for (target, online) in target.chunks_mut(CHUNK).zip(online.chunks(CHUNK)) {
            jobs.push(online.len(), (target, online));
        }
    }
    jobs.list.par_iter_mut().flatten_iter().for_each(|(target, online)| T::mix(target, online, tau));
}

/// The first tensor that holds a NaN or an infinity.
pub(super) fn any_non_finite<T: Real>(tensors: &[&[T]]) -> Option<usize> {
    let mut jobs = Jobs::default();
    for (i, values) in tensors.iter().enumerate() {
        values.chunks(CHUNK).for_each(|chunk| jobs.push(chunk.len(), (i, chunk)));
    }
    let bad = |(i, chunk): &(usize, &[T])| {
        let mut fine = true;
        T::finite(chunk, &mut fine);
        (!fine).then_some(*i)
    };
    jobs.list.par_iter().filter_map(|job| job.iter().find_map(bad)).min()
}

/// Pieces of work gathered into jobs of about [`CHUNK`] elements, in order.
struct Jobs<P> {
    list: Vec<Vec<P>>,
    /// Elements in the last job.
    filled: usize,
}

impl<P> Default for Jobs<P> {
    fn default() -> Self {
        Self { list: Vec::new(), filled: CHUNK }
    }
}

impl<P> Jobs<P> {
    fn push(&mut self, elements: usize, piece: P) {
        if self.filled + elements > CHUNK {
            self.list.push(Vec::new());
            self.filled = 0;
        }
        self.filled += elements;
        if let Some(job) = self.list.last_mut() {
            job.push(piece);
        }
    }
}
