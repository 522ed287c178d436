//! The cluster-level loss of Contrastive Clustering (Li et al., AAAI 2021, arXiv:2009.09687).

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use diptych_comm::{Collective, all_gather};
use diptych_kernels::nt_xent;

use crate::Loss;
use crate::loss::wide;
use crate::rows::{check_pair, x_log_x};

/// Each cluster must find itself in the other view, and no cluster may take all images.
///
/// Columns of the soft assignments, `[N, K]`, stand for clusters: NT-Xent over the 2K columns of both views, less the entropy
/// of each view's mean assignment.
///
/// ```text
/// L = 1/2K sum_k (l(k, a) + l(k, b)) + sum_v (ln K - H_v),  H = -sum_k P_k ln P_k,  P_k = sum_i p_ik / sum p    (eq. 5, 6)
/// ```
///
/// ln K, which the official code adds and the paper does not, makes the second term 0 for clusters of one size. The loss of
/// assignments that are all uniform is `ln(2K - 1)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClusterContrast {
    /// The temperature. The paper's is 1.
    pub temperature: f64,
}

impl ClusterContrast {
    /// The loss of two views.
    ///
    /// `p1`, `p2`: `[N, K]`, f32 or bf16, soft assignments (a softmax's rows), row i of both from the same image.
    ///
    /// Parts: `contrast`, the first term; `entropy`, the mean of H over both views, of which ln K is the most there can be. The
    /// total is `contrast + 2 (ln K - entropy)`.
    ///
    /// # Errors
    /// If the shapes differ or are empty, K < 2, or the temperature is not positive and finite.
    pub fn loss(&self, p1: &Tensor, p2: &Tensor) -> Result<Loss> {
        check_pair("cluster_contrast", p1, p2)?;
        let clusters = p1.dim(1)?;
        if clusters < 2 {
            bail!("cluster_contrast: needs at least 2 clusters, the assignments are {:?}", p1.dims())
        }
        let (p1, p2) = (wide(p1)?, wide(p2)?);
        let contrast = nt_xent(&p1.t()?, &p2.t()?, self.temperature)?;
        let entropies = (entropy(&p1)? + entropy(&p2)?)?;
        let total = (&contrast + entropies.affine(-1.0, 2.0 * (clusters as f64).ln())?)?;
        let entropy = entropies.detach().affine(0.5, 0.0)?;
        Ok(Loss { total, parts: vec![("contrast", contrast.detach()), ("entropy", entropy)] })
    }

    /// The loss over all ranks' rows, the same on each of them, with gradients for this rank's; N is each rank's.
    ///
    /// # Errors
    /// As [`Self::loss`], or if a collective fails.
    pub fn loss_over(&self, p1: &Tensor, p2: &Tensor, comm: &Arc<dyn Collective>) -> Result<Loss> {
        check_pair("cluster_contrast", p1, p2)?;
        self.loss(&all_gather(comm, &wide(p1)?)?, &all_gather(comm, &wide(p2)?)?)
    }
}

/// The entropy of the mean assignment, `[]`.
fn entropy(p: &Tensor) -> Result<Tensor> {
    let mean = p.sum(0)?.broadcast_div(&p.sum_all()?)?;
    x_log_x(&mean)?.sum_all()?.neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};
    use diptych_kernels::check::Array;

    fn value(loss: &Loss) -> Result<f32> {
        loss.total.to_scalar()
    }

    fn views(n: usize, k: usize) -> Result<(Tensor, Tensor)> {
        let softmax = |seed| crate::rows::log_softmax(&Array::random(&[n, k], seed).map(|v| 3.0 * v).tensor()?)?.exp();
        Ok((softmax(1)?, softmax(2)?))
    }

    /// By hand: two images, each in a cluster of its own, t = 1: ln(1 + 2/e); the clusters are of one size.
    #[test]
    fn two_pure_clusters() -> Result<()> {
        let p = Tensor::eye(2, DType::F32, &Device::Cpu)?;
        let loss = ClusterContrast { temperature: 1.0 }.loss(&p, &p)?;
        assert!((value(&loss)? - (1.0 + 2.0 / std::f32::consts::E).ln()).abs() < 1e-6);
        assert_eq!((loss.parts[0].0, loss.parts[1].0), ("contrast", "entropy"));
        assert!((loss.parts[1].1.to_scalar::<f32>()? - 2f32.ln()).abs() < 1e-6);
        Ok(())
    }

    /// All images in one cluster: the entropy is 0, and the penalty 2 ln K. Empty clusters give finite gradients.
    #[test]
    fn one_cluster_for_all_is_punished() -> Result<()> {
        let mut rows = [[0f32; 4]; 6];
        rows.iter_mut().for_each(|row| row[2] = 1.0);
        let p = Var::new(&rows, &Device::Cpu)?;
        let loss = ClusterContrast { temperature: 1.0 }.loss(&p, &p)?;
        let contrast = loss.parts[0].1.to_scalar::<f32>()?;
        assert!((value(&loss)? - (contrast + 2.0 * 4f32.ln())).abs() < 1e-6);
        assert_eq!(loss.parts[1].1.to_scalar::<f32>()?, 0.0);
        let grads = loss.total.backward()?;
        assert!(grads.get(&p).unwrap().abs()?.max_all()?.to_scalar::<f32>()?.is_finite());
        Ok(())
    }

    #[test]
    fn uniform_assignments_give_the_log_of_the_choices() -> Result<()> {
        let p = Tensor::full(0.2f32, (7, 5), &Device::Cpu)?;
        assert!((value(&ClusterContrast { temperature: 1.0 }.loss(&p, &p)?)? - 9f32.ln()).abs() < 1e-6);
        Ok(())
    }

    /// Neither the order of images or clusters, nor that of the views matters; parts carry no gradient.
    #[test]
    fn order_does_not_matter() -> Result<()> {
        let objective = ClusterContrast { temperature: 0.5 };
        let (p1, p2) = views(9, 5)?;
        let before = value(&objective.loss(&p1, &p2)?)?;
        for (dim, len) in [(0, 9u32), (1, 5)] {
            let order = Tensor::new((0..len).map(|i| (i * 2 + 1) % len).collect::<Vec<_>>(), &Device::Cpu)?;
            let after = objective.loss(&p1.index_select(&order, dim)?, &p2.index_select(&order, dim)?)?;
            assert!((value(&after)? - before).abs() < 1e-5);
        }
        assert!((value(&objective.loss(&p2, &p1)?)? - before).abs() < 1e-5);
        let p1 = Var::from_tensor(&p1)?;
        for (_, part) in objective.loss(&p1, &p2)?.parts {
            assert!(part.backward()?.get(&p1).is_none());
        }
        Ok(())
    }

    #[test]
    fn one_cluster_is_refused() -> Result<()> {
        let p = Tensor::ones((3, 1), DType::F32, &Device::Cpu)?;
        let error = ClusterContrast { temperature: 1.0 }.loss(&p, &p).unwrap_err().to_string();
        assert!(error.contains("at least 2 clusters"), "{error}");
        Ok(())
    }
}
