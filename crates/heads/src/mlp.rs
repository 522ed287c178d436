//! A multi-layer perceptron from a list of blocks.

use candle_core::{Result, Tensor, bail};
use diptych_nn::{BatchNorm, Bias, Linear, Scope, segment};

/// The normalization after a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// None.
    None,
    /// Batch norm with scale and shift.
    ScaleShift,
    /// Batch norm with a scale and no shift (SimCLR's last layer).
    Scale,
    /// Batch norm with neither (SimSiam's last layer).
    Plain,
}

/// Linear, then normalization, then ReLU, as far as wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Output width.
    pub width: usize,
    /// What the linear layer adds.
    pub bias: Bias,
    /// What normalizes its output.
    pub norm: Norm,
    /// Whether a ReLU follows.
    pub relu: bool,
}

impl Block {
    /// A linear layer alone; its width is still to be set.
    pub(crate) fn linear(bias: Bias) -> Self {
        Self { width: 0, bias, norm: Norm::None, relu: false }
    }

    /// Linear and ReLU.
    pub(crate) fn relu(bias: Bias) -> Self {
        Self { relu: true, ..Self::linear(bias) }
    }

    /// Linear, batch norm with scale and shift, ReLU.
    pub(crate) fn norm_relu(bias: Bias) -> Self {
        Self { norm: Norm::ScaleShift, ..Self::relu(bias) }
    }
}

/// `[N, I]` to `[N, O]` through the blocks in turn.
///
/// Parameters are named as in a PyTorch `Sequential` of the same modules: `0.weight`, `1.running_mean`, `3.weight`, ...
#[derive(Clone, Debug)]
pub struct Mlp {
    layers: Vec<(Linear, Option<BatchNorm>, bool)>,
    width: usize,
}

impl Mlp {
    /// Creates the layers in `scope`.
    ///
    /// # Errors
    /// If a width is 0.
    pub fn new(scope: &mut Scope, inputs: usize, blocks: &[Block]) -> Result<Self> {
        let (mut layers, mut width, mut place) = (Vec::new(), inputs, 0);
        for block in blocks {
            if block.width == 0 {
                bail!("{}: a layer of width 0 can't be built; every width must be at least 1", scope.path())
            }
            let linear = Linear::with_bias(&mut scope.pp(place), width, block.width, block.bias)?;
            place += 1;
            let affine = match block.norm {
                Norm::None => None,
                Norm::ScaleShift => Some((Some(1.0), true)),
                Norm::Scale => Some((Some(1.0), false)),
                Norm::Plain => Some((None, false)),
            };
            let norm = match affine {
                Some((gamma, shift)) => {
                    let norm = BatchNorm::with_affine(&mut scope.pp(place), block.width, gamma, shift)?;
                    place += 1;
                    Some(norm)
                }
                None => None,
            };
            place += usize::from(block.relu);
            layers.push((linear, norm, block.relu));
            width = block.width;
        }
        Ok(Self { layers, width })
    }

    /// Maps `h` `[N, I]` to `[N, O]`.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn forward(&self, h: &Tensor, train: bool) -> Result<Tensor> {
        segment(h, train, |tape, mut x| {
            for (linear, norm, relu) in &self.layers {
                x = linear.record(tape, &x)?;
                x = match norm {
                    Some(norm) => norm.record(tape, x, None, *relu)?,
                    None if *relu => diptych_nn::relu(tape, &x)?,
                    None => x,
                };
            }
            Ok(x)
        })
    }

    /// O, the width of the last block; the input's width if there is none.
    pub fn out_dim(&self) -> usize {
        self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use diptych_nn::{Group, ParamStore};

    #[test]
    fn names_are_those_of_a_sequential() -> Result<()> {
        let mut store = ParamStore::new(0, &Device::Cpu);
        let blocks = crate::projector::simclr(&[6, 5]);
        let head = Mlp::new(&mut store.scope(Group::Projector).pp("projector"), 4, &blocks)?;
        let names: Vec<_> = store.trainable().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "projector.0.weight",
                "projector.1.bias",
                "projector.1.weight",
                "projector.3.weight",
                "projector.4.weight"
            ]
        );
        assert_eq!(head.out_dim(), 5);
        Ok(())
    }

    #[test]
    fn the_last_norm_gives_zero_mean_and_unit_variance() -> Result<()> {
        let mut store = ParamStore::new(0, &Device::Cpu);
        let head = Mlp::new(&mut store.scope(Group::Projector), 4, &crate::projector::simclr(&[6, 5]))?;
        let h = diptych_nn::Init::Normal(1.0).draw(&[32, 4], 1, "h", &Device::Cpu)?;
        let z = head.forward(&h, true)?.to_dtype(DType::F64)?;
        let mean = z.mean(0)?.abs()?.max(0)?.to_scalar::<f64>()?;
        let variance = z.sqr()?.mean(0)?.min(0)?.to_scalar::<f64>()?;
        assert!(mean < 1e-5 && (variance - 1.0).abs() < 1e-2, "mean {mean}, variance {variance}");
        Ok(())
    }

    /// SimSiam's last bias is drawn, is in no optimizer, and gets no gradient, while the weight before it does.
    #[test]
    fn a_frozen_bias_stays_out_of_the_optimizer() -> Result<()> {
        let mut store = ParamStore::new(0, &Device::Cpu);
        let head = Mlp::new(&mut store.scope(Group::Projector), 4, &crate::projector::simsiam(&[6, 5]))?;
        let bias = store.get("3.bias").unwrap();
        assert_eq!(bias.group, Group::Frozen);
        assert!(bias.var.abs()?.max(0)?.to_scalar::<f32>()? > 0.0);
        let names: Vec<_> = store.trainable().map(|(name, _)| name).collect();
        assert_eq!(names, ["0.weight", "1.bias", "1.weight", "3.weight"]);
        let h = diptych_nn::Init::Normal(1.0).draw(&[8, 4], 1, "h", &Device::Cpu)?;
        let weights = diptych_nn::Init::Normal(1.0).draw(&[8, 5], 1, "w", &Device::Cpu)?;
        let grads = diptych_nn::backward(&(head.forward(&h, true)? * weights)?.sum_all()?)?;
        assert!(grads.get(&bias.var).is_none());
        assert!(grads.get(&store.get("3.weight").unwrap().var).is_some());
        Ok(())
    }

    #[test]
    fn a_width_of_zero_is_refused() {
        let mut store = ParamStore::new(0, &Device::Cpu);
        let blocks = crate::projector::barlow_twins(&[8, 0]);
        let error = Mlp::new(&mut store.scope(Group::Projector).pp("projector"), 4, &blocks).unwrap_err();
        assert!(error.to_string().contains("projector: a layer of width 0"), "{error}");
    }
}
