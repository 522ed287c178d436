//! What a loss returns.

use candle_core::{DType, Result, Tensor};

/// A loss and the numbers it is made of.
#[derive(Clone, Debug)]
pub struct Loss {
    /// What to minimize: `[]` f32, carries the gradient.
    pub total: Tensor,
    /// Terms and measures for plots, by name: `[]` f32 each, detached from the graph.
    pub parts: Vec<(&'static str, Tensor)>,
}

/// bf16 embeddings as f32, through which gradients go back; others as they are. Losses are computed in f32.
pub(crate) fn wide(z: &Tensor) -> Result<Tensor> {
    if z.dtype() == DType::BF16 { z.to_dtype(DType::F32) } else { Ok(z.clone()) }
}

/// The mean cosine similarity of two sets of rows at length 1, `[]`, detached.
pub(crate) fn cosine(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    (a.detach() * b.detach())?.sum(1)?.mean_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Balance, BarlowTwins, ClusterContrast, InfoNce, NegativeCosine, NormalizedMse, NtXent};
    use crate::{PrototypeCrossEntropy, SimilarityCrossEntropy, SwappedPrediction, sinkhorn};
    use candle_core::Var;
    use diptych_comm::Local;
    use diptych_kernels::check::Array;

    type Function<'a> = &'a dyn Fn(&Tensor, &Tensor) -> Result<Loss>;

    /// Every loss of bf16 embeddings, parts included, is that of the same values in f32, and so is its gradient but for
    /// rounding.
    #[test]
    fn losses_take_bf16() -> Result<()> {
        let queue = Array::random(&[9, 6], 3).tensor()?;
        let losses: [Function; 11] = [
            &|a, b| NtXent::new(0.3).loss(a, b),
            &|a, b| BarlowTwins { balance: Balance::Lambda(0.1) }.loss(a, b),
            &|a, b| InfoNce { temperature: 0.3 }.loss(a, b, &queue),
            &|a, b| InfoNce { temperature: 0.3 }.loss_among(a, b, 0),
            &|a, b| NtXent { temperature: 0.3, normalize: false }.loss(a, b),
            &|a, b| NormalizedMse.loss(a, b),
            &|a, b| NegativeCosine.loss(a, b),
            &|a, b| SimilarityCrossEntropy.loss(a, b),
            &|a, b| SwappedPrediction { temperature: 0.3 }.loss(a, &sinkhorn(b, 0.3, 3, &Local)?),
            &|a, _| PrototypeCrossEntropy { temperature: 0.3 }.loss(a, &[Some(1), None, Some(5), Some(0), Some(2)]),
            &|a, b| ClusterContrast { temperature: 0.3 }.loss(&a.abs()?, &b.abs()?),
        ];
        let z = |seed| Array::random(&[5, 6], seed).tensor()?.to_dtype(DType::BF16);
        for loss in losses {
            let (z1, z2) = (z(1)?, z(2)?);
            let narrow = Var::from_tensor(&z1)?;
            let full = Var::from_tensor(&z1.to_dtype(DType::F32)?)?;
            let (a, b) = (loss(&narrow, &z2)?, loss(&full, &z2.to_dtype(DType::F32)?)?);
            let numbers = |loss: &Loss| -> Result<Vec<f32>> {
                [&loss.total]
                    .into_iter()
                    .chain(loss.parts.iter().map(|(_, part)| part))
                    .map(Tensor::to_scalar)
                    .collect()
            };
            assert_eq!(numbers(&a)?, numbers(&b)?);
            let (a, b) = (a.total.backward()?, b.total.backward()?);
            let rounded = b.get(&full).unwrap().to_dtype(DType::BF16)?;
            assert_eq!(Array::of(a.get(&narrow).unwrap())?, Array::of(&rounded)?);
        }
        Ok(())
    }
}
