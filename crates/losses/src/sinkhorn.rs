//! The codes of SwAV: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (Caron et al., NeurIPS
//! 2020, arXiv:2006.09882).

use candle_core::{DType, Result, Tensor, bail};
use diptych_comm::Collective;

/// Beyond this range of `scores / epsilon`, products of exponentials could leave what f64 holds.
const RANGE: f64 = 300.0;

/// Codes that spread the batch evenly over the prototypes: the Sinkhorn-Knopp algorithm.
///
/// ```text
/// Q = Diag(u) exp(S / epsilon) Diag(v)        (eq. 5)
/// ```
///
/// `scores` S: `[N, K]`, this rank's. Each of the `iterations` (the paper: 3) divides every column by its sum over all rows
/// *of all ranks*, then every row by its sum. Returns `[N, K]` f32, detached: rows sum to 1, and the more iterations the
/// nearer the columns come to N/K. With a small `epsilon` (the paper: 0.05) codes are nearly one prototype each, with a
/// large one they are uniform.
///
/// The work is done in f64, from differences to the largest score of all ranks, so that nothing overflows. On a GPU nobody waits to see whether
/// the scores span too much: what overflows there becomes NaN, which the loss shows.
///
/// # Errors
/// If the shape is not `[N, K]`, the scores span more than 300 epsilon or are not finite, epsilon is not positive and finite,
/// there is no iteration, or a collective fails.
pub fn sinkhorn(scores: &Tensor, epsilon: f64, iterations: usize, comm: &dyn Collective) -> Result<Tensor> {
    if !matches!(scores.dims(), &[n, k] if n > 0 && k > 0) {
        bail!("sinkhorn: scores are [N, K] with at least one of both, got shape {:?}", scores.dims())
    }
    if !(epsilon.is_finite() && epsilon > 0.0) {
        bail!("sinkhorn: epsilon must be positive and finite, is {epsilon}")
    }
    if iterations == 0 {
        bail!("sinkhorn: needs at least 1 iteration; the paper takes 3")
    }
    let scores = scores.detach().to_dtype(DType::F64)?;
    let all = extremes(&scores, comm)?;
    let shifted = scores.broadcast_sub(&all.narrow(1, 0, 1)?.max_keepdim(0)?)?;
    if scores.device().is_cpu() {
        check_span(&all, epsilon)?;
    }
    let mut q = (shifted / epsilon)?.exp()?;
    for _ in 0..iterations {
        let columns = comm.all_reduce_sum(&q.sum_keepdim(0)?)?;
        q = q.broadcast_div(&columns)?;
        q = q.broadcast_div(&q.sum_keepdim(1)?)?;
    }
    q.to_dtype(DType::F32)
}

/// Refuses scores that overflow; `extremes` as [`extremes`] gives them.
fn check_span(extremes: &Tensor, epsilon: f64) -> Result<()> {
    let all = extremes.to_vec2::<f64>()?;
    let highest = all.iter().fold(f64::NEG_INFINITY, |highest, rank| highest.max(rank[0]));
    let lowest = all.iter().fold(f64::INFINITY, |lowest, rank| lowest.min(rank[1]));
    let span = highest - lowest;
    // Every rank has the same extremes, so all of them stop here, or none.
    if !(span.is_finite() && span <= RANGE * epsilon) {
        bail!(
            "sinkhorn: the scores span {span} (from {lowest} to {highest}), which is too much for epsilon = {epsilon}; \
             are embeddings and prototypes L2-normalized? If so, take an epsilon of at least {}",
            span / RANGE
        )
    }
    Ok(())
}

/// The largest and the smallest value of each rank, `[ranks, 2]`.
fn extremes(x: &Tensor, comm: &dyn Collective) -> Result<Tensor> {
    comm.all_gather(&Tensor::stack(&[x.max_all()?, x.min_all()?], 0)?.reshape((1, 2))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};
    use diptych_comm::Local;
    use diptych_kernels::check::Array;

    fn far(x: &Tensor, expected: f32) -> Result<f32> {
        x.affine(1.0, -f64::from(expected))?.abs()?.max_all()?.to_scalar()
    }

    /// Rows sum to 1 after any number of iterations; after many, columns hold N/K each. Codes carry no graph.
    #[test]
    fn rows_sum_to_1_and_columns_come_to_balance() -> Result<()> {
        for (n, k) in [(12, 5), (3, 8), (1, 4), (7, 7)] {
            let scores = Var::from_tensor(&Array::random(&[n, k], 1).tensor()?)?;
            for iterations in [1, 3, 300] {
                let q = sinkhorn(&scores, 0.5, iterations, &Local)?;
                assert_eq!((q.dims(), q.dtype(), q.track_op()), (&[n, k][..], DType::F32, false));
                assert!(far(&q.sum(1)?, 1.0)? < 1e-6);
                if iterations == 300 {
                    assert!(far(&q.sum(0)?, n as f32 / k as f32)? < 1e-5, "{n} {k}");
                }
            }
        }
        Ok(())
    }

    /// Equal scores, or a large epsilon, give uniform codes; a small one gives each row one prototype, also where all rows
    /// like the same best.
    #[test]
    fn epsilon_goes_from_one_prototype_to_all() -> Result<()> {
        let equal = Tensor::full(0.3f32, (6, 4), &Device::Cpu)?;
        assert!(far(&sinkhorn(&equal, 0.05, 3, &Local)?, 0.25)? < 1e-6);
        let scores = Array::random(&[6, 4], 3).tensor()?;
        assert!(far(&sinkhorn(&scores, 1e6, 3, &Local)?, 0.25)? < 1e-5);
        let scores = Tensor::new(&[[0.9f32, 0.1], [0.8, 0.6]], &Device::Cpu)?;
        let q = sinkhorn(&scores, 0.01, 50, &Local)?.to_vec2::<f32>()?;
        assert!(q[0][0] > 0.99 && q[1][1] > 0.99, "{q:?}");
        Ok(())
    }

    /// A shift of all scores changes nothing, however large.
    #[test]
    fn a_shift_does_not_matter() -> Result<()> {
        let scores = Array::random(&[6, 4], 3).map(|v| (v * 64.0).round() / 64.0).tensor()?;
        let (a, b) = (sinkhorn(&scores, 0.05, 3, &Local)?, sinkhorn(&(&scores + 1024.0)?, 0.05, 3, &Local)?);
        assert!((a - b)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-6);
        Ok(())
    }

    #[test]
    fn what_cannot_be_balanced_is_refused() -> Result<()> {
        let scores = Array::random(&[6, 4], 3).tensor()?;
        let error = |epsilon, iterations| sinkhorn(&scores, epsilon, iterations, &Local).unwrap_err().to_string();
        assert!(error(0.0, 3).contains("epsilon must be positive"));
        assert!(error(1e-4, 3).contains("too much for epsilon = 0.0001"));
        assert!(error(0.05, 0).contains("at least 1 iteration"));
        assert!(sinkhorn(&scores.get(0)?, 0.05, 3, &Local).unwrap_err().to_string().contains("[4]"));
        Ok(())
    }
}
