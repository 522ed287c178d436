//! InfoNCE on a GPU: queries against keys, and for the keys' gradient keys against queries.

use candle_core::{CudaStorage, Layout, Result, Tensor};

use super::{NAME, Pairs};
use crate::contrast::{Arithmetic, Gradient, Prepared, Problem, Rule, Weights, operand, positives_beside, ready};
use crate::cuda::{Buffer, Gpu, Memory};

/// What the backward pass needs.
pub(super) struct Saved {
    arithmetic: Arithmetic,
    /// Rows that products don't take as they are.
    q: Option<Prepared>,
    keys: Option<Prepared>,
    rules: Rules,
    /// `[N]`: the log-sum-exp of each query.
    of_rows: Buffer,
    /// `[N]`: the share of each query's positive less 1, where it lies beside the keys.
    beside: Option<Buffer>,
}

struct Rules {
    positive: Rule,
    excluded: Rule,
}

/// Queries `[N, D]` and keys `[K, D]`.
#[derive(Clone, Copy)]
pub(super) struct Sides<'a> {
    pub(super) q: Memory<'a>,
    pub(super) keys: Memory<'a>,
    pub(super) d: usize,
    pub(super) temperature: f64,
}

impl<'a> Sides<'a> {
    pub(super) fn new(gpu: &Gpu, q: &'a Tensor, keys: &'a Tensor, temperature: f64) -> Result<Self> {
        Ok(Self { q: Memory::of(NAME, gpu, q)?, keys: Memory::of(NAME, gpu, keys)?, d: q.dim(1)?, temperature })
    }

    fn n(&self) -> usize {
        self.q.len() / self.d
    }

    fn problem(&self, saved: &'a Saved) -> Problem<'a> {
        self.against(saved.arithmetic, [&saved.q, &saved.keys], &saved.rules)
    }

    fn against(&self, arithmetic: Arithmetic, [q, keys]: [&'a Option<Prepared>; 2], rules: &'a Rules) -> Problem<'a> {
        let (rows, columns) = (operand(q, self.q, self.d), operand(keys, self.keys, self.d));
        let (positive, excluded) = (&rules.positive, &rules.excluded);
        Problem { arithmetic, rows, columns, temperature: self.temperature, bounded: false, positive, excluded }
    }

    /// The loss, with positives `beside` the keys `[N, D]` or among them as `pairs` say.
    fn forward(&self, gpu: &Gpu, beside: Option<Memory>, pairs: Option<&Pairs>) -> Result<(CudaStorage, Saved)> {
        let arithmetic = Arithmetic::of(self.q.dtype());
        let q = ready(gpu, arithmetic, self.q, self.d)?;
        let keys = ready(gpu, arithmetic, self.keys, self.d)?;
        let rule = |list: Option<&Vec<u32>>| list.map_or(Ok(Rule::Nobody), |list| Rule::new(gpu, list));
        let positive = rule(pairs.map(|pairs| &pairs.positive))?;
        let excluded = rule(pairs.and_then(|pairs| pairs.excluded.as_ref()))?;
        let rules = Rules { positive, excluded };
        let beside = match beside {
            Some(k) => Some(positives_beside(gpu, [self.q, k], self.d, self.temperature)?),
            None => None,
        };
        let joined = self.against(arithmetic, [&q, &keys], &rules).forward(gpu, beside)?;
        let (of_rows, beside) = (joined.of_rows, joined.beside);
        Ok((joined.loss.into_storage(), Saved { arithmetic, q, keys, rules, of_rows, beside }))
    }

    fn factor(&self) -> f64 {
        1.0 / (self.n() as f64 * self.temperature)
    }
}

pub(super) fn forward_beside(args: [(&CudaStorage, &Layout); 3], temperature: f64) -> Result<(CudaStorage, Saved)> {
    let gpu = Gpu::new(&args[0].0.device);
    let [q, k, keys] = args.map(|(storage, layout)| Memory::of_storage(NAME, storage, layout));
    Sides { q: q?, keys: keys?, d: args[0].1.dims()[1], temperature }.forward(&gpu, Some(k?), None)
}

pub(super) fn forward_among(
    args: [(&CudaStorage, &Layout); 2],
    pairs: &Pairs,
    temperature: f64,
) -> Result<(CudaStorage, Saved)> {
    let gpu = Gpu::new(&args[0].0.device);
    let [q, keys] = args.map(|(storage, layout)| Memory::of_storage(NAME, storage, layout));
    Sides { q: q?, keys: keys?, d: args[0].1.dims()[1], temperature }.forward(&gpu, None, Some(pairs))
}

/// The gradient for the queries of `upstream` times the loss; `k`: the positives beside the keys.
pub(super) fn query_gradient(
    gpu: &Gpu,
    saved: &Saved,
    sides: Sides,
    k: Option<&Tensor>,
    upstream: &Tensor,
) -> Result<Tensor> {
    let sums = sides.problem(saved).weighted(gpu, Weights::Rows, &saved.of_rows)?;
    let k = k.map(|k| Memory::of(NAME, gpu, k)).transpose()?;
    let upstream = Memory::of(NAME, gpu, upstream)?;
    let gradient = Gradient {
        n: sides.n(),
        width: sides.d,
        sums: Some(&sums),
        beside: k.zip(saved.beside.as_ref()),
        upstream,
        factor: sides.factor(),
    };
    gradient.finish(gpu, sides.q.dtype())
}

/// The gradient for positives beside the keys.
pub(super) fn positive_gradient(gpu: &Gpu, saved: &Saved, sides: Sides, upstream: &Tensor) -> Result<Tensor> {
    let upstream = Memory::of(NAME, gpu, upstream)?;
    let beside = saved.beside.as_ref().map(|weights| (sides.q, weights));
    let gradient = Gradient { n: sides.n(), width: sides.d, sums: None, beside, upstream, factor: sides.factor() };
    gradient.finish(gpu, sides.q.dtype())
}

/// The gradient for the keys that hold the positives.
pub(super) fn key_gradient(gpu: &Gpu, saved: &Saved, sides: Sides, upstream: &Tensor) -> Result<Tensor> {
    let forward = sides.problem(saved);
    let turned = Problem { rows: forward.columns, columns: forward.rows, ..forward };
    let sums = turned.weighted(gpu, Weights::Columns, &saved.of_rows)?;
    let upstream = Memory::of(NAME, gpu, upstream)?;
    let n = sides.keys.len() / sides.d;
    let gradient = Gradient { n, width: sides.d, sums: Some(&sums), beside: None, upstream, factor: sides.factor() };
    gradient.finish(gpu, sides.keys.dtype())
}
