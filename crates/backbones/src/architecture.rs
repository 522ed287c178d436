//! What a ResNet is made of, and the PyTorch lines that make the same one.

use std::collections::BTreeMap;

/// The residual block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Two 3x3 convolutions (He et al. 2016, fig. 5 left).
    Basic,
    /// 1x1, 3x3, 1x1, the last four times as wide (fig. 5 right), with the stride on the 3x3 as in torchvision (v1.5).
    Bottleneck,
}

impl BlockKind {
    /// How much wider a block's output is than its inner convolutions.
    pub fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

/// What comes before the first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stem {
    /// 7x7 stride 2, then 3x3 max pooling stride 2: the first block sees a quarter of the resolution.
    Imagenet,
    /// 3x3 stride 1, no pooling: the first block sees the full resolution (SimCLR, section B.9).
    Cifar,
    /// 3x3 stride 2, no pooling: the first block sees half the resolution, for a quarter of [`Stem::Cifar`]'s work.
    Strided,
}

impl Stem {
    /// The convolution's kernel, stride and padding.
    pub fn convolution(self) -> (usize, usize, usize) {
        match self {
            Self::Imagenet => (7, 2, 3),
            Self::Cifar => (3, 1, 1),
            Self::Strided => (3, 2, 1),
        }
    }

    /// The word for it in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Imagenet => "imagenet",
            Self::Cifar => "cifar",
            Self::Strided => "strided",
        }
    }
}

/// A ResNet's shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// The residual block.
    pub block: BlockKind,
    /// Blocks of each of the four layers; zeros at the end leave layers out.
    pub depths: [usize; 4],
    /// Channels of the stem and of the first layer's inner convolutions; each layer doubles them.
    pub base: usize,
    /// Channels of the images.
    pub channels: usize,
    /// What comes before the first block.
    pub stem: Stem,
    /// Whether each block's last norm starts with a scale of 0, so that blocks start as the identity.
    pub zero_init_residual: bool,
}

impl Architecture {
    /// How many layers there are: four, or fewer in a small network.
    pub fn layers(&self) -> usize {
        self.depths.iter().take_while(|depth| **depth > 0).count()
    }

    /// F, the width of a representation.
    pub fn out_dim(&self) -> usize {
        (self.base << (self.layers().max(1) - 1)) * self.block.expansion()
    }

    /// Every parameter and running statistic by name with its shape, convolutions `[O, I, kh, kw]`, as in PyTorch.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let mut all = BTreeMap::new();
        let mut pair = |conv: String, bn: String, inputs: usize, outputs: usize, kernel: usize| {
            all.insert(format!("{conv}.weight"), vec![outputs, inputs, kernel, kernel]);
            for part in ["weight", "bias", "running_mean", "running_var"] {
                all.insert(format!("{bn}.{part}"), vec![outputs]);
            }
        };
        pair("conv1".into(), "bn1".into(), self.channels, self.base, self.stem.convolution().0);
        let mut inputs = self.base;
        for (i, &depth) in self.depths[..self.layers()].iter().enumerate() {
            let (inner, outputs) = (self.base << i, (self.base << i) * self.block.expansion());
            for block in 0..depth {
                let name = format!("layer{}.{block}", i + 1);
                let plan: &[[usize; 3]] = match self.block {
                    BlockKind::Basic => &[[inputs, inner, 3], [inner, outputs, 3]],
                    BlockKind::Bottleneck => &[[inputs, inner, 1], [inner, inner, 3], [inner, outputs, 1]],
                };
                for (j, &[from, to, kernel]) in plan.iter().enumerate() {
                    pair(format!("{name}.conv{}", j + 1), format!("{name}.bn{}", j + 1), from, to, kernel);
                }
                if (i > 0 && block == 0) || inputs != outputs {
                    pair(format!("{name}.downsample.0"), format!("{name}.downsample.1"), inputs, outputs, 1);
                }
                inputs = outputs;
            }
        }
        all
    }

    /// The Python lines that build this network in PyTorch as `model`, ready for
    /// `model.load_state_dict(weights, strict=False)`.
    pub fn pytorch(&self) -> String {
        let block = match self.block {
            BlockKind::Basic => "BasicBlock",
            BlockKind::Bottleneck => "Bottleneck",
        };
        // torchvision makes at least one block a layer; a layer too many is taken out again below.
        let (base, depths) = (self.base, self.depths.map(|depth| depth.max(1)));
        let (kernel, stride, padding) = self.stem.convolution();
        let mut lines = vec!["import torch".to_string()];
        lines.push(format!("from torchvision.models.resnet import ResNet, {block}"));
        if base == 64 {
            lines.push(format!("model = ResNet({block}, {depths:?})"));
        } else {
            lines.push("class WideResNet(ResNet):".into());
            lines.push("    def _make_layer(self, block, planes, *args, **kwargs):".into());
            lines.push(format!("        self.inplanes = {base} if planes == 64 else self.inplanes"));
            lines.push(format!("        return super()._make_layer(block, planes * {base} // 64, *args, **kwargs)"));
            lines.push(format!("model = WideResNet({block}, {depths:?})"));
            lines.push(format!("model.bn1 = torch.nn.BatchNorm2d({base})"));
            lines.push(format!("model.fc = torch.nn.Linear({}, 1000)", self.out_dim()));
        }
        for layer in self.layers()..4 {
            lines.push(format!("model.layer{} = torch.nn.Identity()", layer + 1));
        }
        if base != 64 || self.stem != Stem::Imagenet || self.channels != 3 {
            let channels = self.channels;
            lines.push(format!(
                "model.conv1 = torch.nn.Conv2d({channels}, {base}, {kernel}, {stride}, {padding}, bias=False)"
            ));
        }
        if self.stem != Stem::Imagenet {
            lines.push("model.maxpool = torch.nn.Identity()".into());
        }
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BackboneConfig, NAMES, ResNet};
    use diptych_nn::{Group, Layout, ParamStore};

    #[test]
    fn shapes_are_those_of_the_network() {
        for name in NAMES {
            let config = BackboneConfig { name: name.into(), base: Some(2), width: 2, ..Default::default() };
            let architecture = config.architecture(224).unwrap();
            let mut store = ParamStore::new(1, &candle_core::Device::Cpu);
            ResNet::new(&mut store.scope(Group::Trunk), &architecture).unwrap();
            let tensors = store.tensors(Layout::Oihw).unwrap().into_iter();
            let shapes: BTreeMap<_, _> = tensors.map(|(name, tensor)| (name, tensor.dims().to_vec())).collect();
            assert_eq!(architecture.shapes(), shapes, "{name}");
        }
    }

    #[test]
    fn a_resnet18_with_a_cifar_stem_is_torchvisions_with_two_lines_changed() {
        let architecture = Architecture {
            block: BlockKind::Basic,
            depths: [2, 2, 2, 2],
            base: 64,
            channels: 3,
            stem: Stem::Cifar,
            zero_init_residual: false,
        };
        assert_eq!(
            architecture.pytorch(),
            "import torch\n\
             from torchvision.models.resnet import ResNet, BasicBlock\n\
             model = ResNet(BasicBlock, [2, 2, 2, 2])\n\
             model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)\n\
             model.maxpool = torch.nn.Identity()\n"
        );
    }
}
