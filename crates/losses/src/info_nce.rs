//! InfoNCE as MoCo uses it: Momentum Contrast for Unsupervised Visual Representation Learning (He et al., CVPR 2020,
//! arXiv:1911.05722), and An Empirical Study of Training Self-Supervised Vision Transformers (Chen et al., ICCV 2021,
//! arXiv:2104.02057).

use std::sync::Arc;

use candle_core::{Result, Tensor};
use diptych_comm::{Collective, all_gather};
use diptych_kernels::info_nce::Pairs;
use diptych_kernels::{info_nce, info_nce_among, l2_normalize};

use crate::Loss;
use crate::loss::{cosine, wide};

/// InfoNCE: each query must pick its key, another view of its image, among negatives.
///
/// ```text
/// l_i = -log( exp(q_i k_i / t) / sum_k' exp(q_i k' / t) ),  q, k at length 1        (MoCo, eq. 1)
/// ```
///
/// The sum runs over the query's key and its negatives; the loss is the mean over queries. `log(1 + negatives)` is what
/// embeddings that are all the same give. (MoCo v3's code multiplies it by 2 t, which is left to the method.)
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InfoNce {
    /// The temperature t. MoCo's is 0.07, that of its second version and of its third 0.2.
    pub temperature: f64,
}

impl InfoNce {
    /// The loss against a queue of negatives.
    ///
    /// `q`, `k`: `[N, D]`, f32 or bf16, any scale, row i of both from the same image; they are L2-normalized here. `queue`:
    /// `[K, D]`, earlier keys at length 1, taken as they are. Gradients go to q, to k if it is tracked, never to the queue.
    /// Memory is O((N + K) D).
    ///
    /// Parts: `positive_cosine`, the mean cosine similarity of queries and their keys.
    ///
    /// # Errors
    /// If the shapes do not fit, or the temperature is not positive and finite.
    pub fn loss(&self, q: &Tensor, k: &Tensor, queue: &Tensor) -> Result<Loss> {
        let (q, k) = (l2_normalize(&wide(q)?)?, l2_normalize(&wide(k)?)?);
        let total = info_nce(&q, &k, queue, self.temperature)?;
        Ok(Loss { total, parts: vec![("positive_cosine", cosine(&q, &k)?)] })
    }

    /// The loss among keys of the same step: those of all ranks, `[K, D]`, of which the queries' own begin at row `first`
    /// (MoCo v3). The keys of other images are the negatives. On one rank the keys are `[N, D]` and `first` is 0.
    ///
    /// `q`, `keys`: f32 or bf16, any scale; they are L2-normalized here. Gradients go to both where they are tracked.
    ///
    /// Parts: as [`InfoNce::loss`].
    ///
    /// # Errors
    /// If the shapes do not fit, or the temperature is not positive and finite.
    pub fn loss_among(&self, q: &Tensor, keys: &Tensor, first: usize) -> Result<Loss> {
        let (q, keys) = (l2_normalize(&wide(q)?)?, l2_normalize(&wide(keys)?)?);
        let count = q.dim(0)?;
        let total = info_nce_among(&q, &keys, &Pairs::aligned(first, count), self.temperature)?;
        let positive_cosine = cosine(&q, &keys.narrow(0, first, count)?)?;
        Ok(Loss { total, parts: vec![("positive_cosine", positive_cosine)] })
    }

    /// [`Self::loss_among`] the keys of all ranks: the mean over ranks is the loss of the whole batch.
    ///
    /// `q`, `k`: `[N, D]`, this rank's, N the same on every rank. Other ranks' keys are gathered with gradients, for those that
    /// are tracked. Parts are this rank's.
    ///
    /// # Errors
    /// As [`Self::loss_among`], or if a collective fails.
    pub fn among_over(&self, q: &Tensor, k: &Tensor, comm: &Arc<dyn Collective>) -> Result<Loss> {
        let keys = all_gather(comm, &wide(k)?)?;
        self.loss_among(q, &keys, comm.rank() * k.dim(0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};
    use diptych_kernels::check::Array;

    const LOSS: InfoNce = InfoNce { temperature: 0.2 };

    fn rows(n: usize, seed: u64) -> Result<Tensor> {
        Array::random(&[n, 5], seed).tensor()
    }

    fn value(loss: &Loss) -> Result<f32> {
        loss.total.to_scalar::<f32>()
    }

    /// By hand: a query like its key and orthogonal to the two negatives, t = 1: -log(e / (e + 1 + 1)).
    #[test]
    fn one_query_among_orthogonal_negatives() -> Result<()> {
        let q = Tensor::new(&[[3f32, 0.0, 0.0]], &Device::Cpu)?;
        let queue = Tensor::new(&[[0f32, 1.0, 0.0], [0.0, 0.0, 1.0]], &Device::Cpu)?;
        let loss = InfoNce { temperature: 1.0 }.loss(&q, &q, &queue)?;
        let e = std::f64::consts::E;
        assert!((f64::from(value(&loss)?) + (e / (e + 2.0)).ln()).abs() < 1e-6);
        assert_eq!(loss.parts[0].0, "positive_cosine");
        assert_eq!(loss.parts[0].1.to_scalar::<f32>()?, 1.0);
        Ok(())
    }

    /// Embeddings that are all the same cannot be told apart: the log of the number of choices.
    #[test]
    fn collapsed_embeddings_give_the_log_of_the_choices() -> Result<()> {
        let same = Tensor::ones((8, 4), DType::F32, &Device::Cpu)?;
        assert!((value(&LOSS.loss(&same, &same, &(&same * 0.5)?)?)? - 9f32.ln()).abs() < 1e-6);
        assert!((value(&LOSS.loss_among(&same, &same, 0)?)? - 8f32.ln()).abs() < 1e-6);
        Ok(())
    }

    /// Neither the order of the queue, nor the length of a query or key matters.
    #[test]
    fn order_and_length_do_not_matter() -> Result<()> {
        let (q, k, queue) = (rows(4, 1)?, rows(4, 2)?, l2_normalize(&rows(9, 3)?)?);
        let before = value(&LOSS.loss(&q, &k, &queue)?)?;
        let order = Tensor::new((0..9u32).rev().collect::<Vec<_>>(), &Device::Cpu)?;
        let after = value(&LOSS.loss(&(&q * 7.0)?, &(&k * 0.1)?, &queue.index_select(&order, 0)?)?)?;
        assert!((after - before).abs() < 1e-5);
        Ok(())
    }

    /// The keys of others in the same step are what a queue of them would be.
    #[test]
    fn keys_of_the_step_are_a_queue_of_the_others() -> Result<()> {
        let (q, keys) = (rows(1, 1)?, rows(4, 2)?);
        let among = LOSS.loss_among(&q, &keys, 2)?;
        let others = Tensor::cat(&[keys.narrow(0, 0, 2)?, keys.narrow(0, 3, 1)?], 0)?;
        let queue = LOSS.loss(&q, &keys.narrow(0, 2, 1)?, &l2_normalize(&others)?)?;
        assert!((value(&among)? - value(&queue)?).abs() < 1e-6);
        let cosines = [&among, &queue].map(|loss| loss.parts[0].1.to_scalar::<f32>().unwrap());
        assert_eq!(cosines[0], cosines[1]);
        Ok(())
    }

    /// Since a row's length does not matter, its gradient is orthogonal to it; neither parts nor the queue have one.
    #[test]
    fn the_gradient_is_tangential_and_only_the_total_has_one() -> Result<()> {
        let var = |n, seed| Var::from_tensor(&rows(n, seed)?);
        let (q, k, queue) = (var(4, 1)?, var(4, 2)?, var(6, 3)?);
        let loss = LOSS.loss(&q, &k, &queue)?;
        let grads = loss.total.backward()?;
        for z in [&q, &k] {
            let gradient = grads.get(z).unwrap();
            let along = (gradient * z.as_tensor())?.sum(1)?.abs()?.max(0)?.to_scalar::<f32>()?;
            assert!(along < 1e-6 && gradient.abs()?.max_all()?.to_scalar::<f32>()? > 1e-3);
        }
        assert!(grads.get(&queue).is_none());
        assert!(loss.parts[0].1.backward()?.get(&q).is_none());
        Ok(())
    }
}
