//! InfoNCE: each query must pick its key among all others, without the N x K matrix of logits in memory.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};

use crate::dense::{Dense, slice};
use crate::embeddings::rows_for_products;

const NAME: &str = "info_nce";

/// InfoNCE against a queue of negatives (MoCo, arXiv:1911.05722, eq. 1).
///
/// `q`, `k`: `[N, D]`, row i of both from the same image; `queue`: `[K, D]`, constants. Rows are taken as they are: for
/// cosine similarities give them at length 1. Returns the mean over the N queries, `[]` f32, with a gradient for q, and for
/// k if it is tracked.
///
/// ```text
/// l_i = -log( exp(q_i k_i / t) / (exp(q_i k_i / t) + sum_j exp(q_i queue_j / t)) )
/// ```
///
/// Memory is O((N + K) D): the N x K matrix is made in tiles and made again in the backward pass. The result is the same
/// for any number of threads.
///
/// The tensors are f32 or bf16. On the CPU the loss of bf16 values is that of the same numbers in f32. On a GPU, where all are bf16, tensor
/// cores multiply them as they are, and in the gradient weights rounded to bf16; sums are f32.
///
/// # Errors
/// If the shapes do not fit or one is empty, `temperature` is not positive and finite, or the tensors are of another type or on two devices.
pub fn info_nce(q: &Tensor, k: &Tensor, queue: &Tensor, temperature: f64) -> Result<Tensor> {
    let (_, d) = extent("q", q)?;
    if q.dims() != k.dims() {
        bail!("{NAME}: the queries are {:?} and their keys {:?}; each query needs one key", q.dims(), k.dims())
    }
    if extent("the queue", queue)?.1 != d {
        bail!("{NAME}: the queries are {:?} and the queue {:?}; both need the same width", q.dims(), queue.dims())
    }
    check_temperature(temperature)?;
    let [q, k, queue] = rows_for_products(NAME, [("q", q), ("k", k), ("queue", &queue.detach())])?;
    q.apply_op3(&k, &queue, Beside { temperature, saved: OnceLock::new() })
}

/// Which key belongs to which query in [`info_nce_among`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// For each query the index of its key.
    pub positive: Vec<u32>,
    /// For each query the index of a key that it does not see: itself, where queries are among the keys.
    pub excluded: Option<Vec<u32>>,
}

impl Pairs {
    /// Query i belongs to key `first + i`, and sees all keys: a rank's `count` queries against the gathered keys of all
    /// ranks, of which its own begin at `first` (MoCo v3).
    pub fn aligned(first: usize, count: usize) -> Self {
        Self { positive: (first as u32..).take(count).collect(), excluded: None }
    }

    /// NT-Xent over ranks: of a global batch of `total` images this rank has `count` from `first` on; its queries are both
    /// views of them, `[2 count, D]`, the keys both views of all, `[2 total, D]`. No view sees itself.
    pub fn two_views(first: usize, count: usize, total: usize) -> Self {
        let from = |start: usize| (start as u32..).take(count);
        let (own, other) = (from(first), from(total + first));
        Self { positive: other.clone().chain(own.clone()).collect(), excluded: Some(own.chain(other).collect()) }
    }
}

/// InfoNCE among one set of keys that holds the positives too.
///
/// `q`: `[N, D]`, `keys`: `[K, D]`, as they are; `pairs` says where each query's key lies. Returns the mean over the N
/// queries, `[]` f32, with a gradient for both where they are tracked. Memory as in [`info_nce`].
///
/// ```text
/// l_i = -log( exp(q_i key_p(i) / t) / sum_{j != e(i)} exp(q_i key_j / t) )
/// ```
///
/// # Errors
/// As [`info_nce`]; also if `pairs` are not N, point outside of the keys, or exclude a positive.
pub fn info_nce_among(q: &Tensor, keys: &Tensor, pairs: &Pairs, temperature: f64) -> Result<Tensor> {
    let (n, d) = extent("q", q)?;
    let (count, width) = extent("keys", keys)?;
    if width != d {
        bail!("{NAME}: the queries are {:?} and the keys {:?}; both need the same width", q.dims(), keys.dims())
    }
    for index in [Some(&pairs.positive), pairs.excluded.as_ref()].into_iter().flatten() {
        if index.len() != n {
            bail!("{NAME}: {} indices for {n} queries", index.len())
        }
        if let Some(outside) = index.iter().find(|&&i| i as usize >= count) {
            bail!("{NAME}: index {outside} of {count} keys")
        }
    }
    if let Some(i) = pairs.excluded.iter().flatten().zip(&pairs.positive).position(|(e, p)| e == p) {
        bail!("{NAME}: query {i} excludes its own key {}", pairs.positive[i])
    }
    check_temperature(temperature)?;
    let [q, keys] = rows_for_products(NAME, [("q", q), ("keys", keys)])?;
    q.apply_op2(&keys, Among { temperature, pairs: pairs.clone(), saved: OnceLock::new() })
}

fn extent(name: &str, x: &Tensor) -> Result<(usize, usize)> {
    match x.dims() {
        &[n, d] if n > 0 && d > 0 => Ok((n, d)),
        dims => bail!("{NAME}: {name} must be [rows, D] with at least one of both, is {dims:?}"),
    }
}

fn check_temperature(temperature: f64) -> Result<()> {
    if !(temperature.is_finite() && temperature > 0.0 && (1.0 / temperature) as f32 <= f32::MAX / 2.0) {
        bail!("{NAME}: the temperature must be positive and finite, is {temperature}")
    }
    Ok(())
}

/// What a forward pass leaves for the backward pass.
enum Saved {
    Cpu(cpu::Saved),
    #[cfg(feature = "cuda")]
    Cuda(Box<cuda::Saved>),
}

fn keep(cell: &OnceLock<Saved>, saved: Saved) -> Result<()> {
    match cell.set(saved) {
        Ok(()) => Ok(()),
        Err(_) => bail!("{NAME}: one op value was applied twice"),
    }
}

/// The device of the forward pass.
#[cfg(feature = "cuda")]
fn gpu(q: &Tensor) -> Result<crate::cuda::Gpu> {
    match crate::cuda::Gpu::of(q) {
        Some(gpu) => Ok(gpu),
        None => bail!("{NAME}: backward on another device than forward"),
    }
}

fn scalar(upstream: &Tensor) -> Result<f64> {
    upstream.to_dtype(DType::F64)?.to_scalar::<f64>()
}

fn like(x: &Tensor, gradient: Vec<f32>) -> Result<Tensor> {
    Tensor::from_vec(gradient, x.shape(), x.device())
}

/// Positives beside the keys.
struct Beside {
    temperature: f64,
    saved: OnceLock<Saved>,
}

impl Beside {
    fn rows<'a>(&self, q: &'a [f32], k: &'a [f32], queue: &'a [f32], d: usize) -> cpu::Rows<'a> {
        let positive = cpu::Positive::Beside(k);
        cpu::Rows { q, keys: queue, d, temperature: self.temperature, positive, excluded: None }
    }
}

impl CustomOp3 for Beside {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (q, k, queue) = (slice(NAME, s1, l1)?, slice(NAME, s2, l2)?, slice(NAME, s3, l3)?);
        let (loss, saved) = cpu::forward(&self.rows(q, k, queue, l1.dims()[1]));
        keep(&self.saved, Saved::Cpu(saved))?;
        Ok((CpuStorage::F32(vec![loss]), Shape::from(())))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &candle_core::CudaStorage,
        l1: &Layout,
        s2: &candle_core::CudaStorage,
        l2: &Layout,
        s3: &candle_core::CudaStorage,
        l3: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (loss, saved) = cuda::forward_beside([(s1, l1), (s2, l2), (s3, l3)], self.temperature)?;
        keep(&self.saved, Saved::Cuda(Box::new(saved)))?;
        Ok((loss, Shape::from(())))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        queue: &Tensor,
        _: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let saved = match self.saved.get() {
            None => bail!("{NAME}: backward before forward"),
            Some(Saved::Cpu(saved)) => saved,
            #[cfg(feature = "cuda")]
            Some(Saved::Cuda(saved)) => {
                let gpu = gpu(q)?;
                let sides = cuda::Sides::new(&gpu, q, queue, self.temperature)?;
                let dq = q.track_op().then(|| cuda::query_gradient(&gpu, saved, sides, Some(k), upstream));
                let dk = k.track_op().then(|| cuda::positive_gradient(&gpu, saved, sides, upstream));
                return Ok((dq.transpose()?, dk.transpose()?, None));
            }
        };
        let upstream = scalar(upstream)?;
        let (q_rows, k_rows, queue) = (Dense::new(NAME, q)?, Dense::new(NAME, k)?, Dense::new(NAME, queue)?);
        let rows = self.rows(&q_rows, &k_rows, &queue, q.dim(1)?);
        let dq = q.track_op().then(|| like(q, cpu::query_gradient(&rows, saved, upstream)));
        let dk = k.track_op().then(|| like(k, cpu::positive_gradient(&rows, saved, upstream)));
        Ok((dq.transpose()?, dk.transpose()?, None))
    }
}

/// Positives among the keys.
struct Among {
    temperature: f64,
    pairs: Pairs,
    saved: OnceLock<Saved>,
}

impl Among {
    fn rows<'a>(&'a self, q: &'a [f32], keys: &'a [f32], d: usize) -> cpu::Rows<'a> {
        let positive = cpu::Positive::Among(&self.pairs.positive);
        let excluded = self.pairs.excluded.as_deref();
        cpu::Rows { q, keys, d, temperature: self.temperature, positive, excluded }
    }
}

impl CustomOp2 for Among {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (q, keys) = (slice(NAME, s1, l1)?, slice(NAME, s2, l2)?);
        let (loss, saved) = cpu::forward(&self.rows(q, keys, l1.dims()[1]));
        keep(&self.saved, Saved::Cpu(saved))?;
        Ok((CpuStorage::F32(vec![loss]), Shape::from(())))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &candle_core::CudaStorage,
        l1: &Layout,
        s2: &candle_core::CudaStorage,
        l2: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (loss, saved) = cuda::forward_among([(s1, l1), (s2, l2)], &self.pairs, self.temperature)?;
        keep(&self.saved, Saved::Cuda(Box::new(saved)))?;
        Ok((loss, Shape::from(())))
    }

    fn bwd(
        &self,
        q: &Tensor,
        keys: &Tensor,
        _: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let saved = match self.saved.get() {
            None => bail!("{NAME}: backward before forward"),
            Some(Saved::Cpu(saved)) => saved,
            #[cfg(feature = "cuda")]
            Some(Saved::Cuda(saved)) => {
                let gpu = gpu(q)?;
                let sides = cuda::Sides::new(&gpu, q, keys, self.temperature)?;
                let dq = q.track_op().then(|| cuda::query_gradient(&gpu, saved, sides, None, upstream));
                let dk = keys.track_op().then(|| cuda::key_gradient(&gpu, saved, sides, upstream));
                return Ok((dq.transpose()?, dk.transpose()?));
            }
        };
        let upstream = scalar(upstream)?;
        let (q_rows, key_rows) = (Dense::new(NAME, q)?, Dense::new(NAME, keys)?);
        let rows = self.rows(&q_rows, &key_rows, q.dim(1)?);
        let dq = q.track_op().then(|| like(q, cpu::query_gradient(&rows, saved, upstream)));
        let dk = keys.track_op().then(|| like(keys, cpu::key_gradient(&rows, saved, upstream)));
        Ok((dq.transpose()?, dk.transpose()?))
    }
}
