//! ResNet (He et al. 2016, arXiv:1512.03385) as torchvision builds it, with its parameter names.
//!
//! The stride of a bottleneck is on its 3x3 convolution (torchvision's "v1.5"). Batch norm, the residual sum and ReLU are
//! one op.

use candle_core::{Result, Tensor, bail};
use diptych_nn::{Backbone, BatchNorm, Conv2d, Scope};

use crate::config::{Architecture, BackboneConfig, Kind, Stem};

/// A residual network: stem, four stages of blocks, and the mean over the last feature map.
#[derive(Debug)]
pub struct ResNet {
    stem: (Conv2d, BatchNorm),
    pool: bool,
    stages: Vec<Vec<Block>>,
    out_dim: usize,
}

#[derive(Debug)]
struct Block {
    /// Convolutions with their norms, in order.
    layers: Vec<(Conv2d, BatchNorm)>,
    downsample: Option<(Conv2d, BatchNorm)>,
}

impl ResNet {
    /// Builds the network of `config` in `scope`, for images of side `size` (which only decides the stem of `auto`).
    ///
    /// # Errors
    /// If the name or the width is not known.
    pub fn new(config: &BackboneConfig, size: usize, scope: &mut Scope) -> Result<Self> {
        config.check()?;
        let &Architecture { kind, blocks, base, .. } = config.architecture()?;
        let base = base * config.width;
        let imagenet = config.stem.resolve(size) == Stem::Imagenet;
        let (kernel, stride, padding) = if imagenet { (7, 2, 3) } else { (3, 1, 1) };
        let conv = Conv2d::new(&mut scope.pp("conv1"), 3, base, kernel, stride, padding)?;
        let stem = (conv, BatchNorm::new(&mut scope.pp("bn1"), base, 1.0)?);
        let last_gamma = if config.zero_init_residual { 0.0 } else { 1.0 };
        let mut inputs = base;
        let mut stages = Vec::new();
        for (i, &count) in blocks.iter().enumerate() {
            let width = base << i;
            let mut stage = Vec::new();
            let mut scope = scope.pp(format!("layer{}", i + 1));
            for b in 0..count {
                let stride = if i > 0 && b == 0 { 2 } else { 1 };
                let (block, outputs) = Block::new(&mut scope.pp(b), kind, inputs, width, stride, last_gamma)?;
                stage.push(block);
                inputs = outputs;
            }
            stages.push(stage);
        }
        Ok(Self { stem, pool: imagenet, stages, out_dim: inputs })
    }
}

impl Block {
    fn new(
        scope: &mut Scope,
        kind: Kind,
        inputs: usize,
        width: usize,
        stride: usize,
        last_gamma: f64,
    ) -> Result<(Self, usize)> {
        // (kernel, stride, padding, output channels) of each convolution.
        let (plan, outputs) = match kind {
            Kind::Basic => (vec![(3, stride, 1, width), (3, 1, 1, width)], width),
            Kind::Bottleneck => (vec![(1, 1, 0, width), (3, stride, 1, width), (1, 1, 0, 4 * width)], 4 * width),
        };
        let mut layers = Vec::new();
        let mut channels = inputs;
        for (i, &(kernel, stride, padding, out)) in plan.iter().enumerate() {
            let conv = Conv2d::new(&mut scope.pp(format!("conv{}", i + 1)), channels, out, kernel, stride, padding)?;
            let gamma = if i + 1 == plan.len() { last_gamma } else { 1.0 };
            layers.push((conv, BatchNorm::new(&mut scope.pp(format!("bn{}", i + 1)), out, gamma)?));
            channels = out;
        }
        let downsample = if stride != 1 || inputs != outputs {
            let mut scope = scope.pp("downsample");
            let conv = Conv2d::new(&mut scope.pp(0), inputs, outputs, 1, stride, 0)?;
            Some((conv, BatchNorm::new(&mut scope.pp(1), outputs, 1.0)?))
        } else {
            None
        };
        Ok((Self { layers, downsample }, outputs))
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let shortcut = match &self.downsample {
            Some((conv, norm)) => norm.forward(&conv.forward(x, train)?, train)?,
            None => x.clone(),
        };
        let mut h = x.clone();
        for (i, (conv, norm)) in self.layers.iter().enumerate() {
            let residual = (i + 1 == self.layers.len()).then_some(&shortcut);
            h = norm.forward_with(&conv.forward(&h, train)?, residual, true, train)?;
        }
        Ok(h)
    }
}

impl Backbone for ResNet {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        match self.stages(x, train)?.last() {
            Some(map) => diptych_kernels::global_avg_pool(map),
            None => bail!("a ResNet has four stages"),
        }
    }

    fn stages(&self, x: &Tensor, train: bool) -> Result<Vec<Tensor>> {
        if x.rank() != 4 || x.dim(3)? != 3 {
            bail!("a backbone takes images [N, H, W, 3], got {:?}", x.dims())
        }
        let (conv, norm) = &self.stem;
        let mut h = norm.forward_with(&conv.forward(x, train)?, None, true, train)?;
        if self.pool {
            h = diptych_kernels::max_pool2d(&h, 3, 2, 1)?;
        }
        let mut maps = Vec::new();
        for stage in &self.stages {
            for block in stage {
                h = block.forward(&h, train)?;
            }
            maps.push(h.clone());
        }
        Ok(maps)
    }

    fn out_dim(&self) -> usize {
        self.out_dim
    }
}
