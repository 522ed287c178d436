//! How an exported backbone is loaded elsewhere: lines to copy, for each format.

use anyhow::{Result, bail};
use diptych_backbones::pretrained::fits_detectron2;
use diptych_backbones::{Architecture, BackboneConfig, BlockKind, Input, Stem};
use serde_json::json;

/// For torchvision: the lines that build the module, and load `file` into it.
pub fn torchvision(architecture: &Architecture, file: &str) -> String {
    format!(
        "{}from safetensors.torch import load_file\n\
         print(model.load_state_dict(load_file({file:?}), strict=False))  # only fc is missing\n\
         model.fc = torch.nn.Identity()  # features instead of classes\n",
        architecture.pytorch()
    )
}

/// For timm: the lines that build its model, and load `file` strictly.
///
/// # Errors
/// If timm builds no such network.
pub fn timm(config: &BackboneConfig, architecture: &Architecture, file: &str) -> Result<String> {
    if architecture.base != 64 || config.name == "resnet_tiny" {
        bail!(
            "timm builds no {} with {} channels first; export with --format torchvision, whose lines build it",
            config.name,
            architecture.base
        )
    }
    let channels = match architecture.channels {
        3 => String::new(),
        other => format!(", in_chans={other}"),
    };
    let mut lines = format!(
        "import timm\nimport torch\nfrom safetensors.torch import load_file\nmodel = timm.create_model({:?}, pretrained=False, num_classes=0{channels})\n",
        config.name
    );
    if architecture.stem != Stem::Imagenet {
        let (kernel, stride, padding) = architecture.stem.convolution();
        lines += &format!(
            "model.conv1 = torch.nn.Conv2d({}, 64, {kernel}, {stride}, {padding}, bias=False)\n",
            architecture.channels
        );
        lines += "model.maxpool = torch.nn.Identity()\n";
    }
    Ok(lines + &format!("model.load_state_dict(load_file({file:?}))  # features; nothing is missing\n"))
}

/// What timm's hub keeps in `config.json`, for the metadata of the file.
pub fn timm_config(config: &BackboneConfig, architecture: &Architecture, input: &Input) -> String {
    let size = [architecture.channels, input.size, input.size];
    let pretrained = json!({
        "architecture": config.name, "num_classes": 0, "input_size": size, "mean": input.mean, "std": input.std,
        "first_conv": "conv1", "classifier": "fc", "pool_size": null, "fixed_input_size": false,
    });
    let whole = json!({
        "architecture": config.name, "num_classes": 0, "num_features": architecture.out_dim(), "global_pool": "avg", "pretrained_cfg": pretrained,
    });
    whole.to_string()
}

/// For ONNX Runtime: the lines that run the graph in `file`.
pub fn onnx(input: &Input, file: &str) -> String {
    let (size, channels) = (input.size, input.mean.len());
    format!(
        "import numpy, onnxruntime\n\
         session = onnxruntime.InferenceSession({file:?})\n\
         images = numpy.zeros([1, {channels}, {size}, {size}], numpy.float32)  # (pixels / 255 - mean) / std\n\
         features = session.run([\"features\"], {{\"images\": images}})[0]\n"
    )
}

/// For Detectron2: the part of a configuration file that builds the backbone and loads `file`.
///
/// # Errors
/// If Detectron2 builds no such network.
pub fn detectron2(architecture: &Architecture, input: &Input, file: &str) -> Result<String> {
    fits_detectron2(architecture)?;
    // Whole layers: convolutions of the blocks, the stem and the classifier.
    let per_block = if architecture.block == BlockKind::Basic { 2 } else { 3 };
    let depth = architecture.depths.iter().sum::<usize>() * per_block + 2;
    let bytes =
        |values: &[f32]| values.iter().map(|value| format!("{:.3}", value * 255.0)).collect::<Vec<_>>().join(", ");
    let mut lines = format!(
        "MODEL:\n  WEIGHTS: {file:?}\n  PIXEL_MEAN: [{}]\n  PIXEL_STD: [{}]\n  RESNETS:\n    DEPTH: {depth}\n    STRIDE_IN_1X1: False\n",
        bytes(&input.mean),
        bytes(&input.std)
    );
    let expanded = architecture.base * architecture.block.expansion();
    if architecture.base != 64 {
        lines += &format!("    STEM_OUT_CHANNELS: {0}\n    WIDTH_PER_GROUP: {0}\n", architecture.base);
    }
    if expanded != 256 {
        lines += &format!("    RES2_OUT_CHANNELS: {expanded}\n");
    }
    Ok(lines + "INPUT:\n  FORMAT: \"RGB\"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str, width: usize) -> (BackboneConfig, Architecture) {
        let config = BackboneConfig { name: name.into(), width, ..BackboneConfig::default() };
        let architecture = config.architecture(224).unwrap();
        (config, architecture)
    }

    #[test]
    fn detectron2_is_told_depth_and_widths() {
        let input = Input { size: 224, mean: vec![0.5; 3], std: vec![0.25; 3] };
        for (name, width, parts) in [
            ("resnet50", 1, vec!["DEPTH: 50", "[127.500, 127.500, 127.500]", "[63.750"]),
            ("resnet18", 1, vec!["DEPTH: 18", "RES2_OUT_CHANNELS: 64"]),
            ("resnet101", 1, vec!["DEPTH: 101"]),
            ("resnet50", 2, vec!["STEM_OUT_CHANNELS: 128", "RES2_OUT_CHANNELS: 512", "WIDTH_PER_GROUP: 128"]),
        ] {
            let text = detectron2(&network(name, width).1, &input, "f.pth").unwrap();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
        assert!(!detectron2(&network("resnet50", 1).1, &input, "f.pth").unwrap().contains("RES2"));
        assert!(detectron2(&network("resnet18", 2).1, &input, "f.pth").is_err());
        assert!(detectron2(&network("resnet_tiny", 1).1, &input, "f.pth").is_err());
    }

    #[test]
    fn timm_has_no_wide_stems() {
        let (config, architecture) = network("resnet50", 2);
        assert!(timm(&config, &architecture, "f").unwrap_err().to_string().contains("--format torchvision"));
        let (config, architecture) = network("resnet18", 1);
        assert!(
            timm(&config, &architecture, "f")
                .unwrap()
                .contains("create_model(\"resnet18\", pretrained=False, num_classes=0)")
        );
    }
}
