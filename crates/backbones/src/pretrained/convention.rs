//! Where the checkpoints of other projects keep the backbone, and how they call its parts.

/// How the parts of a ResNet are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// torchvision's names: `conv1`, `bn1`, `layer1.0.conv1`, `layer1.0.downsample.0`.
    Torchvision,
    /// Numbers in place of the outermost names, as `nn.Sequential(*list(resnet.children())[:-1])` gives them: `0`, `1`, `4.0.conv1`; with `shortcut` or
    /// `downsample`.
    Sequential,
    /// Detectron2's: `stem.conv1`, `stem.conv1.norm`, `res2.0.conv1`, `res2.0.shortcut`.
    Detectron2,
}

/// One place where a project keeps a backbone.
#[derive(Debug)]
pub(crate) struct Convention {
    /// What `--from` calls it.
    pub(crate) name: &'static str,
    /// Keys of the file's dictionary under which the state dict may be; "" is the dictionary itself.
    pub(crate) containers: &'static [&'static str],
    /// What is before a parameter's name.
    pub(crate) prefixes: &'static [&'static str],
    /// How the parts may be called.
    pub(crate) namings: &'static [Naming],
    /// Beginnings of keys, one of which must be there for the convention to be guessed; none needed where empty.
    pub(crate) marks: &'static [&'static str],
}

use Naming::{Detectron2, Sequential, Torchvision};

/// The conventions that are known by name.
pub const CONVENTIONS: [&str; 10] =
    ["torchvision", "timm", "moco", "simsiam", "barlowtwins", "swav", "byol", "solo-learn", "lightly", "detectron2"];

/// Mean and standard deviation of ImageNet's channels, on which all of these projects normalize by default.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// See [`IMAGENET_MEAN`].
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Every place, the most particular first: a guess takes the first that is there. A name may have several.
pub(crate) const PLACES: [Convention; 13] = [
    // main_moco.py of v1 and v2: {epoch, arch, state_dict, optimizer}, the query encoder in a module in DDP; v3 calls it the base encoder.
    Convention {
        name: "moco",
        containers: &["state_dict"],
        prefixes: &["module.encoder_q.", "encoder_q.", "module.base_encoder.", "base_encoder."],
        namings: &[Torchvision],
        marks: &[],
    },
    // main_simsiam.py, the same with one encoder.
    Convention {
        name: "simsiam",
        containers: &["state_dict"],
        prefixes: &["module.encoder."],
        namings: &[Torchvision],
        marks: &[],
    },
    // Lightning's checkpoints of solo-learn; "encoder." before version 1.0.3.
    Convention {
        name: "solo-learn",
        containers: &["state_dict"],
        prefixes: &["backbone.", "encoder."],
        namings: &[Torchvision],
        marks: &["projector.", "classifier.", "momentum_backbone.", "momentum_encoder."],
    },
    // SimSiam's without DDP.
    Convention {
        name: "simsiam",
        containers: &["state_dict"],
        prefixes: &["encoder."],
        namings: &[Torchvision],
        marks: &["predictor."],
    },
    // Lightning's checkpoints of lightly's examples and benchmarks, and what they call a backbone, alone.
    Convention {
        name: "lightly",
        containers: &["state_dict"],
        prefixes: &["backbone.", "student_backbone.", "query_backbone.", "model.backbone.", "module.backbone."],
        namings: &[Torchvision, Sequential],
        marks: &[],
    },
    Convention {
        name: "lightly",
        containers: &["", "state_dict"],
        prefixes: &["backbone.", "module.backbone.", ""],
        namings: &[Sequential],
        marks: &[],
    },
    // main.py's checkpoint.pth: {epoch, model, optimizer}.
    Convention {
        name: "barlowtwins",
        containers: &["model"],
        prefixes: &["module.backbone.", "backbone."],
        namings: &[Torchvision],
        marks: &[],
    },
    // main_swav.py's checkpoints, and the published ones, which are the state dict alone.
    Convention {
        name: "swav",
        containers: &["", "state_dict"],
        prefixes: &["module.", ""],
        namings: &[Torchvision],
        marks: &["module.prototypes", "module.projection_head", "prototypes", "projection_head"],
    },
    Convention {
        name: "detectron2",
        containers: &["model", ""],
        prefixes: &["", "backbone.bottom_up.", "backbone."],
        namings: &[Detectron2],
        marks: &[],
    },
    // A bare state dict, one of DataParallel, and what training scripts wrap around it.
    Convention {
        name: "torchvision",
        containers: &["", "state_dict", "model", "model_state_dict"],
        prefixes: &["", "module.", "backbone.", "module.backbone.", "model."],
        namings: &[Torchvision],
        marks: &[],
    },
    // The same names as torchvision's; checkpoints of its training script have `state_dict`.
    Convention {
        name: "timm",
        containers: &["", "state_dict", "model", "state_dict_ema"],
        prefixes: &["", "module.", "model."],
        namings: &[Torchvision],
        marks: &[],
    },
    // The published resnet50.pth: the backbone alone.
    Convention {
        name: "barlowtwins",
        containers: &["", "model"],
        prefixes: &["", "module."],
        namings: &[Torchvision],
        marks: &[],
    },
    // BYOL's published weights are Haiku's; converters give torchvision's names without the counts of batches. BYOL in PyTorch keeps an online network.
    Convention {
        name: "byol",
        containers: &["", "state_dict", "online_network_state_dict", "model"],
        prefixes: &[
            "",
            "module.",
            "online_network.",
            "online_encoder.net.",
            "online_encoder.",
            "module.online_encoder.net.",
            "net.",
        ],
        namings: &[Torchvision, Sequential],
        marks: &[],
    },
];

/// What a ResNet's checkpoints call what comes after the backbone: classifiers, projectors, predictors, prototypes, queues.
const HEADS: [&str; 18] = [
    "fc.",
    "linear.",
    "classifier.",
    "head.",
    "heads.",
    "projector.",
    "projection.",
    "projection_head.",
    "projection_mlp.",
    "predictor.",
    "prediction_head.",
    "prediction_mlp.",
    "prototypes.",
    "prototypes_",
    "queue",
    "bn.",
    "online_classifier.",
    "criterion.",
];

/// Whether a name after the prefix belongs to a head.
pub(crate) fn is_head(name: &str) -> bool {
    HEADS.iter().any(|head| name.starts_with(head))
}

impl Naming {
    /// Whether a name after the prefix is one of a ResNet's blocks in this naming: evidence that a backbone is there.
    pub(crate) fn shows(self, name: &str) -> bool {
        let mut parts = name.split('.');
        let (first, second, third) =
            (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let block = is_number(second) && third.starts_with("conv");
        match self {
            Self::Torchvision => first.strip_prefix("layer").is_some_and(is_number) && block,
            Self::Sequential => is_number(first) && block,
            Self::Detectron2 => first.strip_prefix("res").is_some_and(is_number) && block,
        }
    }

    /// torchvision's name for a name after the prefix; `None` for what is no part of a backbone. `layers` are the numbers of the layers where names are
    /// numbers, in order.
    pub(crate) fn torchvision(self, name: &str, layers: &[usize]) -> Option<String> {
        match self {
            Self::Torchvision => Some(name.into()),
            Self::Sequential => {
                let (number, rest) = name.split_once('.')?;
                let number: usize = number.parse().ok()?;
                if let Some(layer) = layers.iter().position(|layer| *layer == number) {
                    // lightly's own ResNets call the way around a block a shortcut.
                    return Some(format!("layer{}.{}", layer + 1, rest.replacen(".shortcut.", ".downsample.", 1)));
                }
                match number {
                    0 => Some(format!("conv1.{rest}")),
                    1 => Some(format!("bn1.{rest}")),
                    _ => None,
                }
            }
            Self::Detectron2 => from_detectron2(name),
        }
    }
}

/// The numbers of the layers among names after the prefix.
pub(crate) fn layer_numbers<'a>(names: impl Iterator<Item = &'a str>) -> Vec<usize> {
    let numbers =
        names.filter(|name| Naming::Sequential.shows(name)).filter_map(|name| name.split('.').next()?.parse().ok());
    let numbers: std::collections::BTreeSet<usize> = numbers.collect();
    numbers.into_iter().collect()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() < 4 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Detectron2's name for torchvision's; `None` for the counts of batches, which its frozen norms lack.
pub(crate) fn to_detectron2(name: &str) -> Option<String> {
    if name.ends_with("num_batches_tracked") {
        return None;
    }
    let mut parts: Vec<String> = name.split('.').map(String::from).collect();
    match parts[0].strip_prefix("layer").and_then(|layer| layer.parse::<usize>().ok()) {
        Some(layer) => parts[0] = format!("res{}", layer + 1),
        None => parts.insert(0, "stem".into()),
    }
    let name = parts.join(".").replace(".downsample.0.", ".shortcut.").replace(".downsample.1.", ".shortcut.norm.");
    Some((1..=3).fold(name, |name, i| name.replace(&format!(".bn{i}."), &format!(".conv{i}.norm."))))
}

fn from_detectron2(name: &str) -> Option<String> {
    let name = (1..=3).fold(name.to_string(), |name, i| name.replace(&format!(".conv{i}.norm."), &format!(".bn{i}.")));
    let name = name.replace(".shortcut.norm.", ".downsample.1.").replace(".shortcut.", ".downsample.0.");
    let (first, rest) = name.split_once('.')?;
    match first.strip_prefix("res") {
        Some(stage) => Some(format!("layer{}.{rest}", stage.parse::<usize>().ok()?.checked_sub(1)?)),
        None if first == "stem" => Some(rest.into()),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names in detectron2/modeling/backbone/resnet.py.
    #[test]
    fn detectron2_names_go_both_ways() {
        for (ours, theirs) in [
            ("conv1.weight", "stem.conv1.weight"),
            ("bn1.running_var", "stem.conv1.norm.running_var"),
            ("layer1.0.conv2.weight", "res2.0.conv2.weight"),
            ("layer3.22.bn3.bias", "res4.22.conv3.norm.bias"),
            ("layer4.0.downsample.0.weight", "res5.0.shortcut.weight"),
            ("layer4.0.downsample.1.running_mean", "res5.0.shortcut.norm.running_mean"),
        ] {
            assert_eq!(to_detectron2(ours).as_deref(), Some(theirs));
            assert_eq!(from_detectron2(theirs).as_deref(), Some(ours));
        }
        assert_eq!(to_detectron2("bn1.num_batches_tracked"), None);
        assert_eq!(from_detectron2("fc.weight"), None);
    }

    #[test]
    fn numbers_become_names() {
        let names =
            ["0.weight", "1.bias", "4.0.conv1.weight", "4.1.bn2.bias", "7.0.downsample.0.weight", "7.0.conv1.weight"];
        let layers = layer_numbers(names.into_iter());
        assert_eq!(layers, [4, 7]);
        let renamed = names.map(|name| Naming::Sequential.torchvision(name, &layers).unwrap());
        let expected = [
            "conv1.weight",
            "bn1.bias",
            "layer1.0.conv1.weight",
            "layer1.1.bn2.bias",
            "layer2.0.downsample.0.weight",
            "layer2.0.conv1.weight",
        ];
        assert_eq!(renamed, expected);
        let short = Naming::Sequential.torchvision("2.0.shortcut.1.weight", &[2]);
        assert_eq!(short.as_deref(), Some("layer1.0.downsample.1.weight"));
    }

    #[test]
    fn every_name_has_a_place() {
        for name in CONVENTIONS {
            assert!(PLACES.iter().any(|place| place.name == name), "{name}");
        }
        assert!(PLACES.iter().all(|place| CONVENTIONS.contains(&place.name)));
    }
}
