//! ResNet: Deep Residual Learning for Image Recognition (He et al., CVPR 2016, arXiv:1512.03385).
//!
//! Layout and parameter names are torchvision's: `conv1`, `bn1`, `layer1.0.conv1`, `layer1.0.downsample.0`, with the
//! stride of a bottleneck on its 3x3 convolution (v1.5). There is no `fc`: the representation is the pooled C5.

use candle_core::{Device, Result, Tensor};
use diptych_nn::{Backbone, BatchNorm, Conv2d, Scope, Tape, Value, global_avg_pool, max_pool2d, segment};

use crate::{Architecture, BlockKind, Stem};

/// A ResNet of any depth, width and stem.
#[derive(Clone, Debug)]
pub struct ResNet {
    stem: Stem,
    channels: usize,
    conv1: Conv2d,
    bn1: BatchNorm,
    layers: Vec<Vec<Block>>,
    out_dim: usize,
}

/// Convolutions with their norms, a shortcut around them, and a ReLU on the sum.
#[derive(Clone, Debug)]
struct Block {
    body: Vec<(Conv2d, BatchNorm)>,
    downsample: Option<(Conv2d, BatchNorm)>,
}

impl Block {
    fn new(scope: &mut Scope, architecture: &Architecture, inputs: usize, inner: usize, stride: usize) -> Result<Self> {
        let outputs = inner * architecture.block.expansion();
        // (inputs, outputs, kernel, stride) of each convolution.
        let plan: &[[usize; 4]] = match architecture.block {
            BlockKind::Basic => &[[inputs, inner, 3, stride], [inner, outputs, 3, 1]],
            BlockKind::Bottleneck => &[[inputs, inner, 1, 1], [inner, inner, 3, stride], [inner, outputs, 1, 1]],
        };
        let last = if architecture.zero_init_residual { 0.0 } else { 1.0 };
        let mut body = Vec::new();
        for (i, &[inputs, outputs, kernel, stride]) in plan.iter().enumerate() {
            let conv =
                Conv2d::new(&mut scope.pp(format!("conv{}", i + 1)), inputs, outputs, kernel, stride, kernel / 2)?;
            let gamma = if i + 1 == plan.len() { last } else { 1.0 };
            body.push((conv, BatchNorm::new(&mut scope.pp(format!("bn{}", i + 1)), outputs, gamma)?));
        }
        let downsample = match stride != 1 || inputs != outputs {
            true => {
                let mut scope = scope.pp("downsample");
                let conv = Conv2d::new(&mut scope.pp(0), inputs, outputs, 1, stride, 0)?;
                Some((conv, BatchNorm::new(&mut scope.pp(1), outputs, 1.0)?))
            }
            false => None,
        };
        Ok(Self { body, downsample })
    }

    fn record(&self, tape: &mut Tape, x: &Value) -> Result<Value> {
        let shortcut = match &self.downsample {
            Some((conv, bn)) => {
                let y = conv.record(tape, x)?;
                &bn.record(tape, y, None, false)?
            }
            None => x,
        };
        let mut y = x.clone();
        for (i, (conv, bn)) in self.body.iter().enumerate() {
            let residual = (i + 1 == self.body.len()).then_some(shortcut);
            let sum = conv.record(tape, &y)?;
            y = bn.record(tape, sum, residual, true)?;
        }
        Ok(y)
    }
}

impl ResNet {
    /// Asks `scope` for the parameters: convolutions are drawn normal with variance 2 / fan_out, as torchvision does.
    ///
    /// # Errors
    /// If the scope's store holds one of the names already.
    pub fn new(scope: &mut Scope, architecture: &Architecture) -> Result<Self> {
        let base = architecture.base;
        let (kernel, stride, padding) = architecture.stem.convolution();
        let conv1 = Conv2d::new(&mut scope.pp("conv1"), architecture.channels, base, kernel, stride, padding)?;
        let bn1 = BatchNorm::new(&mut scope.pp("bn1"), base, 1.0)?;
        let mut inputs = base;
        let mut layers = Vec::new();
        for (i, &depth) in architecture.depths[..architecture.layers()].iter().enumerate() {
            let mut scope = scope.pp(format!("layer{}", i + 1));
            let inner = base << i;
            let mut layer = Vec::new();
            for block in 0..depth {
                let stride = if i > 0 && block == 0 { 2 } else { 1 };
                layer.push(Block::new(&mut scope.pp(block), architecture, inputs, inner, stride)?);
                inputs = inner * architecture.block.expansion();
            }
            layers.push(layer);
        }
        let (stem, channels) = (architecture.stem, architecture.channels);
        Ok(Self { stem, channels, conv1, bn1, layers, out_dim: architecture.out_dim() })
    }

    /// Everything before the first layer.
    fn stem(&self, tape: &mut Tape, x: &Value) -> Result<Value> {
        let channels = self.channels;
        if x.tensor().rank() != 4 || x.tensor().dims()[3] != channels {
            candle_core::bail!("a ResNet takes images [N, H, W, {channels}], got {:?}", x.tensor().dims())
        }
        let y = self.conv1.record(tape, x)?;
        let y = self.bn1.record(tape, y, None, true)?;
        if self.stem == Stem::Imagenet { max_pool2d(tape, &y, 3, 2, 1) } else { Ok(y) }
    }
}

/// The blocks of a layer in turn.
fn blocks(layer: &[Block], tape: &mut Tape, x: Value) -> Result<Value> {
    layer.iter().try_fold(x, |x, block| block.record(tape, &x))
}

impl Backbone for ResNet {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        segment(x, train, |tape, x| {
            let mut y = self.stem(tape, &x)?;
            for layer in &self.layers {
                y = blocks(layer, tape, y)?;
            }
            global_avg_pool(tape, &y)
        })
    }

    fn stages(&self, x: &Tensor, train: bool) -> Result<Vec<Tensor>> {
        let mut y = segment(x, train, |tape, x| self.stem(tape, &x))?;
        let mut stages = Vec::with_capacity(4);
        for layer in &self.layers {
            y = segment(&y, train, |tape, x| blocks(layer, tape, x))?;
            stages.push(y.clone());
        }
        Ok(stages)
    }

    fn out_dim(&self) -> usize {
        self.out_dim
    }

    fn device(&self) -> Device {
        self.conv1.device().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BackboneConfig;
    use candle_core::DType;
    use diptych_nn::{Group, Init, ParamStore};

    fn build(name: &str, edit: impl FnOnce(&mut Architecture)) -> Result<(ParamStore, ResNet)> {
        let mut architecture = BackboneConfig { name: name.into(), ..Default::default() }.architecture(32).unwrap();
        edit(&mut architecture);
        let mut store = ParamStore::new(1, &Device::Cpu);
        let net = ResNet::new(&mut store.scope(Group::Trunk), &architecture)?;
        Ok((store, net))
    }

    /// torchvision 0.30: sum(p.numel() for p in model.parameters()) less those of fc, ImageNet stem.
    #[test]
    fn parameters_are_counted_as_torchvision_counts_them() -> Result<()> {
        for (name, expected) in [("resnet18", 11_176_512), ("resnet34", 21_284_672), ("resnet50", 23_508_032)] {
            let (store, _) = build(name, |a| a.stem = Stem::Imagenet)?;
            assert_eq!(store.trainable_values(), expected, "{name}");
        }
        Ok(())
    }

    #[test]
    fn names_are_torchvisions() -> Result<()> {
        let (store, _) = build("resnet_tiny", |_| {})?;
        for name in ["conv1.weight", "bn1.running_var", "layer1.0.conv2.weight", "layer2.0.downsample.1.bias"] {
            assert!(store.get(name).is_some(), "{name}");
        }
        assert!(store.get("layer1.0.downsample.0.weight").is_none());
        let (store, _) = build("resnet50", |_| {})?;
        assert_eq!(store.get("layer1.0.downsample.0.weight").unwrap().var.dims(), [256, 1, 1, 64]);
        assert_eq!(store.get("layer4.2.conv2.weight").unwrap().var.dims(), [512, 3, 3, 512]);
        Ok(())
    }

    #[test]
    fn stages_halve_the_resolution_and_double_the_channels() -> Result<()> {
        let x = Tensor::ones((1, 32, 32, 3), DType::F32, &Device::Cpu)?;
        for (stem, first) in [(Stem::Cifar, 32), (Stem::Strided, 16), (Stem::Imagenet, 8)] {
            let (_, net) = build("resnet_tiny", |a| a.stem = stem)?;
            let stages = net.stages(&x, false)?;
            for (i, stage) in stages.iter().enumerate() {
                assert_eq!(stage.dims(), [1, first >> i, first >> i, 16 << i], "{stem:?}");
            }
            assert_eq!(net.forward_t(&x, false)?.dims(), [1, net.out_dim()]);
        }
        Ok(())
    }

    /// With the last scales at 0 every block without a downsample is the identity on its non-negative input.
    #[test]
    fn blocks_start_as_the_identity_when_asked() -> Result<()> {
        let x = Init::Normal(1.0).draw(&[2, 8, 8, 3], 3, "images", &Device::Cpu)?;
        let (store, net) = build("resnet_tiny", |a| a.zero_init_residual = true)?;
        let stem = segment(&x, false, |tape, x| net.stem(tape, &x))?;
        let gap = (net.stages(&x, false)?[0].clone() - stem)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert_eq!(gap, 0.0);
        assert_eq!(store.get("layer3.0.bn2.weight").unwrap().var.to_vec1::<f32>()?[0], 0.0);
        assert_eq!(store.get("layer3.0.bn1.weight").unwrap().var.to_vec1::<f32>()?[0], 1.0);
        Ok(())
    }

    #[test]
    fn every_parameter_gets_a_gradient_in_training_and_none_in_evaluation() -> Result<()> {
        let x = Init::Normal(1.0).draw(&[4, 16, 16, 3], 3, "images", &Device::Cpu)?;
        let (store, net) = build("resnet_tiny", |a| a.base = 8)?;
        let grads = net.forward_t(&x, true)?.sqr()?.sum_all()?.backward()?;
        for (name, param) in store.trainable() {
            let grad = grads.get(&param.var).unwrap_or_else(|| panic!("{name} has no gradient"));
            assert!(grad.abs()?.max_all()?.to_scalar::<f32>()? > 0.0, "{name}");
        }
        assert!(!net.forward_t(&x, false)?.track_op());
        Ok(())
    }

    #[test]
    fn an_image_that_is_not_channels_last_is_refused() -> Result<()> {
        let (_, net) = build("resnet_tiny", |_| {})?;
        let x = Tensor::zeros((1, 3, 32, 32), DType::F32, &Device::Cpu)?;
        let error = net.forward_t(&x, false).unwrap_err().to_string();
        assert!(error.contains("[N, H, W, 3], got [1, 3, 32, 32]"), "{error}");
        Ok(())
    }
}
