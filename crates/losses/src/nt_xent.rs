//! NT-Xent, the loss of SimCLR: A Simple Framework for Contrastive Learning of Visual Representations (Chen et al., ICML
//! 2020, arXiv:2002.05709).

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use diptych_comm::{Collective, Local, all_gather};
use diptych_kernels::info_nce::Pairs;
use diptych_kernels::{info_nce_among, l2_normalize, nt_xent};

use crate::Loss;
use crate::loss::{cosine, wide};
use crate::rows::check_pair;

/// NT-Xent: each of the 2N views must pick the other view of its image among the 2N - 1 other views.
///
/// ```text
/// l(i, j) = -log( exp(s_ij / t) / sum_{k != i} exp(s_ik / t) ),  s = cosine similarity        (eq. 1)
/// ```
///
/// The loss is the mean over the 2N views, as in the paper; the official code adds the means over the two halves, which
/// is twice that. `log(2N - 1)` is what embeddings that are all the same give.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NtXent {
    /// The temperature t. The paper's is 0.1 for ImageNet and 0.5 for CIFAR-10.
    pub temperature: f64,
    /// Whether s is the cosine similarity; else it is the dot product of the rows as they are (table 5 of the paper).
    pub normalize: bool,
}

impl NtXent {
    /// NT-Xent of cosine similarities.
    pub fn new(temperature: f64) -> Self {
        Self { temperature, normalize: true }
    }

    /// The loss of two views.
    ///
    /// `z1`, `z2`: `[N, D]`, f32 or bf16, any scale, row i of both from the same image; they are L2-normalized here, unless
    /// `normalize` is off. A row of zeros normalizes to zeros and gets no gradient. Memory is O(N D).
    ///
    /// Parts: `positive_cosine`, the mean cosine similarity of the N pairs.
    ///
    /// # Errors
    /// If the shapes differ, N < 2, or the temperature is not positive and finite.
    pub fn loss(&self, z1: &Tensor, z2: &Tensor) -> Result<Loss> {
        if !self.normalize {
            return self.among(z1, z2, &(Arc::new(Local) as Arc<dyn Collective>));
        }
        let (z1, z2) = (wide(z1)?, wide(z2)?);
        let total = nt_xent(&z1, &z2, self.temperature)?;
        Ok(Loss { total, parts: vec![("positive_cosine", positive_cosine(&z1, &z2)?)] })
    }

    /// The loss of this rank's views, which must pick each other among the views of all ranks: the mean over ranks is the loss
    /// of the whole batch.
    ///
    /// `z1`, `z2`: `[N, D]`, as for [`Self::loss`], N the same on every rank. Views of other ranks are gathered with gradients.
    /// Parts are this rank's.
    ///
    /// # Errors
    /// As [`Self::loss`], with N counted over all ranks, or if a collective fails.
    pub fn loss_over(&self, z1: &Tensor, z2: &Tensor, comm: &Arc<dyn Collective>) -> Result<Loss> {
        if comm.size() == 1 { self.loss(z1, z2) } else { self.among(z1, z2, comm) }
    }

    /// This rank's 2N views as queries among those of all ranks.
    fn among(&self, z1: &Tensor, z2: &Tensor, comm: &Arc<dyn Collective>) -> Result<Loss> {
        check_pair("nt_xent", z1, z2)?;
        let (count, total) = (z1.dim(0)?, z1.dim(0)? * comm.size());
        if total < 2 {
            bail!("nt_xent: needs at least 2 rows and 1 column, got {:?}", z1.dims())
        }
        let ready = |z: &Tensor| if self.normalize { l2_normalize(&wide(z)?) } else { wide(z) };
        let (z1, z2) = (ready(z1)?, ready(z2)?);
        let keys = Tensor::cat(&[all_gather(comm, &z1)?, all_gather(comm, &z2)?], 0)?;
        let pairs = Pairs::two_views(comm.rank() * count, count, total);
        let total = info_nce_among(&Tensor::cat(&[&z1, &z2], 0)?, &keys, &pairs, self.temperature)?;
        Ok(Loss { total, parts: vec![("positive_cosine", positive_cosine(&z1, &z2)?)] })
    }
}

fn positive_cosine(z1: &Tensor, z2: &Tensor) -> Result<Tensor> {
    cosine(&l2_normalize(&z1.detach())?, &l2_normalize(&z2.detach())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};
    use diptych_kernels::check::Array;

    fn views(n: usize, d: usize) -> Result<(Tensor, Tensor)> {
        Ok((Array::random(&[n, d], 1).tensor()?, Array::random(&[n, d], 2).tensor()?))
    }

    fn value(z1: &Tensor, z2: &Tensor) -> Result<f32> {
        NtXent::new(0.2).loss(z1, z2)?.total.to_scalar::<f32>()
    }

    /// By hand: pairs alike and orthogonal to the other pair, t = 1: -log(e / (e + 1 + 1)).
    #[test]
    fn two_orthogonal_pairs() -> Result<()> {
        let z = Tensor::new(&[[3f32, 0.0], [0.0, 0.5]], &Device::Cpu)?;
        let loss = NtXent::new(1.0).loss(&z, &z)?;
        let e = std::f64::consts::E;
        assert!((f64::from(loss.total.to_scalar::<f32>()?) + (e / (e + 2.0)).ln()).abs() < 1e-6);
        assert_eq!(loss.parts[0].0, "positive_cosine");
        assert_eq!(loss.parts[0].1.to_scalar::<f32>()?, 1.0);
        Ok(())
    }

    /// Embeddings that are all the same cannot be told apart: log(2N - 1).
    #[test]
    fn collapsed_embeddings_give_the_log_of_the_choices() -> Result<()> {
        let z = Tensor::ones((9, 4), candle_core::DType::F32, &Device::Cpu)?;
        assert!((value(&z, &z)? - 17f32.ln()).abs() < 1e-6);
        Ok(())
    }

    /// Rotating every embedding by one orthogonal matrix changes nothing.
    #[test]
    fn nt_xent_is_rotation_invariant() -> Result<()> {
        let (z1, z2) = views(12, 6)?;
        // A Householder reflection: I - 2 v v^T with |v| = 1.
        let v = l2_normalize(&Array::random(&[1, 6], 3).tensor()?)?;
        let q = (Tensor::eye(6, candle_core::DType::F32, &Device::Cpu)? - (v.t()?.matmul(&v)? * 2.0)?)?;
        assert!((value(&z1, &z2)? - value(&z1.matmul(&q)?, &z2.matmul(&q)?)?).abs() < 1e-5);
        Ok(())
    }

    /// Neither the order of images, nor the order of views, nor the length of a row matters.
    #[test]
    fn order_and_length_do_not_matter() -> Result<()> {
        let (z1, z2) = views(12, 6)?;
        let order: Vec<u32> = (0..12).map(|i| (i * 5 + 3) % 12).collect();
        let order = Tensor::new(order, &Device::Cpu)?;
        let before = value(&z1, &z2)?;
        assert!((value(&z1.index_select(&order, 0)?, &z2.index_select(&order, 0)?)? - before).abs() < 1e-5);
        assert!((value(&z2, &z1)? - before).abs() < 1e-5);
        let lengths = Tensor::arange(1f32, 13.0, &Device::Cpu)?.reshape((12, 1))?;
        assert!((value(&z1.broadcast_mul(&lengths)?, &z2)? - before).abs() < 1e-5);
        Ok(())
    }

    /// Without normalization: of rows at length 1 the same loss, and a row's length does matter. By hand, at t = 1: a pair
    /// with the product 2, which must be told from two products of 0, and a pair of zeros, which cannot be told from anything.
    #[test]
    fn dot_products_see_the_length() -> Result<()> {
        let plain = |temperature| NtXent { temperature, normalize: false };
        let (z1, z2) = views(12, 6)?;
        let raw = plain(0.2).loss(&l2_normalize(&z1)?, &l2_normalize(&z2)?)?;
        assert!((raw.total.to_scalar::<f32>()? - value(&z1, &z2)?).abs() < 1e-5);
        assert_eq!(raw.parts[0].0, "positive_cosine");
        let z = Tensor::new(&[[2f32.sqrt(), 0.0], [0.0, 0.0]], &Device::Cpu)?;
        let e2 = 2f32.exp();
        let expected = 0.5 * (3f32.ln() - (e2 / (e2 + 2.0)).ln());
        assert!((plain(1.0).loss(&z, &z)?.total.to_scalar::<f32>()? - expected).abs() < 1e-6);
        let error = plain(1.0).loss(&z1, &z2.narrow(0, 0, 3)?).unwrap_err().to_string();
        assert!(error.contains("[12, 6] and [3, 6]"), "{error}");
        assert!(plain(1.0).loss(&z1.narrow(0, 0, 1)?, &z2.narrow(0, 0, 1)?).is_err());
        Ok(())
    }

    /// Since a row's length does not matter, its gradient is orthogonal to it; parts carry none.
    #[test]
    fn the_gradient_is_tangential_and_only_the_total_has_one() -> Result<()> {
        let (z1, z2) = views(8, 5)?;
        let z1 = Var::from_tensor(&z1)?;
        let loss = NtXent::new(0.2).loss(&z1, &z2)?;
        let grads = loss.total.backward()?;
        let gradient = grads.get(&z1).unwrap();
        let along = (gradient * z1.as_tensor())?.sum(1)?.abs()?.max(0)?.to_scalar::<f32>()?;
        assert!(along < 1e-6 && gradient.abs()?.max_all()?.to_scalar::<f32>()? > 1e-3);
        assert!(loss.parts[0].1.backward()?.get(&z1).is_none());
        Ok(())
    }
}
