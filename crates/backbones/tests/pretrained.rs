//! Checkpoints that the real classes of other projects wrote (tests/fixtures/make_weights.py), read; and files that must be refused.

use std::collections::BTreeMap;
use std::path::PathBuf;

use diptych_backbones::pretrained::{Array, Hints, Imported, export_detectron2, import};
use diptych_backbones::{Architecture, Stem};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/weights").join(name)
}

fn read(name: &str) -> Imported {
    import(&fixture(name), &Hints::default()).unwrap_or_else(|error| panic!("{name}: {error:#}"))
}

/// `mix` of tests/fixtures/make_backbones.py.
fn mix(count: usize, key: u32) -> impl Iterator<Item = f64> {
    (0..count as u32).map(move |i| {
        let mut x = i.wrapping_add(key.wrapping_mul(0x9E37_79B1));
        for multiplier in [0x7FEB_352D, 0x846C_A68Bu32] {
            x ^= x >> 15;
            x = x.wrapping_mul(multiplier);
        }
        x ^= x >> 16;
        f64::from(x) / 2f64.powi(31) - 1.0
    })
}

/// `fill` of make_backbones.py for basic blocks: every value of the checkpoints, to the bit.
fn expected(architecture: &Architecture) -> BTreeMap<String, Vec<f32>> {
    let value = |(key, (name, shape)): (usize, (String, Vec<usize>))| {
        let (scale, shift) = match shape.as_slice() {
            &[_, i, kh, kw] => ((6.0 / (i * kh * kw) as f64).sqrt(), 0.0),
            _ if name.ends_with("running_var") => (0.5, 1.0),
            _ if name.ends_with("weight") => (0.1, if name.contains("bn2") { 0.3 } else { 1.0 }),
            _ => (0.1, 0.0),
        };
        let values = mix(shape.iter().product(), key as u32 + 1).map(|u| (shift + scale * u) as f32);
        (name, values.collect())
    };
    architecture.shapes().into_iter().enumerate().map(value).collect()
}

/// The largest difference between what was read and what was written.
fn gap(imported: &Imported) -> f32 {
    let difference = |(name, expected): (&String, &Vec<f32>)| {
        let got: Vec<f32> = imported.tensors[name].tensor().unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(got.len(), expected.len(), "{name}");
        got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    expected(&imported.found.architecture).iter().map(difference).fold(0.0, f32::max)
}

/// File, convention, container, prefix, how many keys are left aside, and one of them.
const CHECKPOINTS: [(&str, &str, &str, &str, usize, &str); 12] = [
    ("torchvision.pth", "torchvision", "", "", 2, "fc.bias"),
    ("timm.pth", "torchvision", "state_dict", "", 2, "fc.bias"),
    ("timm.safetensors", "torchvision", "", "", 2, "fc.weight"),
    ("moco.pth", "moco", "state_dict", "module.encoder_q.", 104, "module.encoder_q.fc.2.weight"),
    ("simsiam.pth", "simsiam", "state_dict", "module.encoder.", 3, "module.predictor.0.weight"),
    ("barlowtwins.pth", "barlowtwins", "model", "module.backbone.", 1, "module.projector.0.weight"),
    ("swav.pth", "swav", "", "module.", 2, "module.prototypes.weight"),
    ("byol.pth", "torchvision", "", "", 2, "fc.bias"),
    ("solo-learn.ckpt", "solo-learn", "state_dict", "backbone.", 102, "momentum_backbone.bn1.bias"),
    ("lightly.ckpt", "lightly", "state_dict", "backbone.", 10, "projection_head.layers.0.weight"),
    ("lightly_cifar.pth", "lightly", "", "backbone.", 0, ""),
    ("legacy.pth", "torchvision", "state_dict", "", 2, "fc.bias"),
];

#[test]
fn every_convention_is_found_by_its_keys_and_read_to_the_bit() {
    for (name, convention, container, prefix, ignored, one) in CHECKPOINTS {
        let imported = read(name);
        let found = &imported.found;
        assert_eq!((found.convention, found.container, found.prefix), (convention, container, prefix), "{name}");
        assert_eq!((found.config.name.as_str(), found.config.base), ("resnet18", Some(1)), "{name}");
        assert_eq!(gap(&imported), 0.0, "{name}");
        // 20 convolutions, each with a norm of 5 tensors.
        assert_eq!(imported.tensors.len(), 20 * 6, "{name}");
        assert_eq!(found.ignored.len(), ignored, "{name}: {:?}", found.ignored);
        assert!(one.is_empty() || found.ignored.iter().any(|key| key == one), "{name}: {:?}", found.ignored);
        let (stem, size) = if name == "lightly_cifar.pth" { (Stem::Cifar, 32) } else { (Stem::Imagenet, 224) };
        assert_eq!((found.architecture.stem, found.input.size), (stem, size), "{name}");
        let count = |norm: &str| imported.tensors[&format!("{norm}.num_batches_tracked")].count().unwrap();
        let counts = if name.starts_with("byol") || name == "lightly_cifar.pth" { [0, 0] } else { [100, 119] };
        assert_eq!([count("bn1"), count("layer4.1.bn2")], counts, "{name}");
    }
}

/// What is said with `--from` is looked for there and nowhere else.
#[test]
fn a_convention_that_is_named_is_held_to() {
    for (name, from) in [
        ("timm.pth", "timm"),
        ("moco.pth", "moco"),
        ("simsiam.pth", "simsiam"),
        ("barlowtwins.pth", "barlowtwins"),
        ("torchvision.pth", "barlowtwins"),
        ("swav.pth", "swav"),
        ("byol.pth", "byol"),
        ("solo-learn.ckpt", "solo-learn"),
        ("lightly.ckpt", "lightly"),
    ] {
        let imported = import(&fixture(name), &Hints { from: Some(from.into()), ..Hints::default() });
        let imported = imported.unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!((imported.found.convention, gap(&imported)), (from, 0.0), "{name}");
    }
    let text = refusal("simsiam.pth", &Hints { from: Some("moco".into()), ..Hints::default() });
    assert!(text.contains("simsiam.pth: no ResNet where moco keeps one") && text.contains("--from simsiam"), "{text}");
    let text = refusal("simsiam.pth", &Hints { from: Some("mocha".into()), ..Hints::default() });
    assert!(text.contains("--from mocha is not known; there are torchvision, timm, moco"), "{text}");
}

/// Strided f64 parameters come out as the f32 they were; halves are as near as halves are.
#[test]
fn other_layouts_and_types_are_converted_and_told() {
    let strides = read("strides.pth");
    assert_eq!(gap(&strides), 0.0);
    assert_eq!(strides.found.notes, ["20 tensors were f64 and are f32 now"]);
    let halves = read("halves.pth");
    assert!((1e-4..4e-3).contains(&gap(&halves)), "{}", gap(&halves));
    assert_eq!(halves.found.notes, ["80 tensors were bf16 and are f32 now", "20 tensors were f16 and are f32 now"]);
}

/// What is written is read again: the same tensors, the same words about images.
#[test]
fn what_was_imported_is_imported_again() {
    let folder = tempfile::tempdir().unwrap();
    let channels = |values: [f32; 3]| Some(values.to_vec());
    let hints = Hints {
        image_size: Some(96),
        mean: channels([0.1, 0.2, 0.3]),
        std: channels([1.0, 2.0, 4.0]),
        ..Hints::default()
    };
    let first = import(&fixture("moco.pth"), &hints).unwrap();
    let path = folder.path().join("moco.safetensors");
    std::fs::write(&path, first.safetensors().unwrap()).unwrap();
    let second = import(&path, &Hints::default()).unwrap();
    assert_eq!((&second.tensors, &second.found.config), (&first.tensors, &first.found.config));
    assert_eq!(second.found.input, first.found.input);
}

/// Detectron2's names, in a file of our own writing, come back as they were; only the counts of batches are left behind.
#[test]
fn what_is_written_for_detectron2_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let first = read("swav.pth");
    let path = folder.path().join("swav_d2.pth");
    std::fs::write(&path, export_detectron2(&first.tensors).unwrap()).unwrap();
    let second = import(&path, &Hints::default()).unwrap();
    assert_eq!((second.found.convention, second.found.container, gap(&second)), ("detectron2", "model", 0.0));
    for (name, array) in &first.tensors {
        let expected = if name.ends_with("num_batches_tracked") { Array::from_count(0) } else { array.clone() };
        assert_eq!(second.tensors[name], expected, "{name}");
    }
}

fn refusal(name: &str, hints: &Hints) -> String {
    match import(&fixture(name), hints) {
        Ok(_) => panic!("{name} was read"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn a_pickle_that_would_run_code_is_refused_and_not_run() {
    for name in ["code.pth", "code_beside.pth"] {
        let text = refusal(name, &Hints::default());
        assert!(
            text.contains(name) && text.contains("calls posix.system") && text.contains("nothing was run"),
            "{text}"
        );
    }
}

#[test]
fn what_is_no_state_dict_is_told() {
    let text = refusal("module.pth", &Hints::default());
    assert!(text.contains("an object of torch.nn.modules.container.Sequential, no state dict"), "{text}");
    let text = refusal("checkpoint.pkl", &Hints::default());
    assert!(text.contains("none of torch.save's"), "{text}");
    let text = refusal("features.safetensors", &Hints::default());
    assert!(text.contains("holds no ResNet that is known here") && text.contains("resnet101"), "{text}");
}

/// What the user says is held to the file.
#[test]
fn another_backbone_than_the_files_is_refused_with_key_and_shapes() {
    let hints = |backbone: &str| Hints { backbone: Some(backbone.into()), ..Hints::default() };
    let text = refusal("torchvision.pth", &hints("resnet34"));
    assert!(text.contains("layer1.2.bn1.bias is missing; resnet34 needs it with shape [1]"), "{text}");
    let text = refusal("moco.pth", &hints("resnet50"));
    assert!(text.contains("module.encoder_q.layer1.0.bn3.bias is missing"), "{text}");
    let text = refusal("torchvision.pth", &Hints { width: Some(2), ..hints("resnet18") });
    assert!(text.contains("bn1.bias has shape [1], resnet18 expects [128]"), "{text}");
    let text = refusal("torchvision.pth", &Hints { stem: Some(Stem::Cifar), ..Hints::default() });
    assert!(text.contains("conv1.weight has shape [1, 3, 7, 7], --stem cifar expects 3 x 3 kernels"), "{text}");
    let text = refusal("torchvision.pth", &Hints { mean: Some(vec![0.5]), ..Hints::default() });
    assert!(text.contains("--mean has 1 numbers") && text.contains("3 channels"), "{text}");
}

/// Every cut of a checkpoint is refused in words; nothing panics, and nothing is read.
#[test]
fn files_that_are_cut_off_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.pth");
    for name in ["torchvision.pth", "legacy.pth", "timm.safetensors"] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        for part in [1, 2, 9, 100, 500, 900, 999] {
            std::fs::write(&path, &bytes[..bytes.len() * part / 1000]).unwrap();
            let error = format!("{:#}", import(&path, &Hints::default()).unwrap_err());
            let told = ["cut off", "not a whole", "claims"].iter().any(|words| error.contains(words));
            assert!(error.contains("cut.pth") && told, "{name} {part}: {error}");
        }
    }
}

/// A safetensors file whose header is `header`, and `room` bytes.
fn lying(header: &str, room: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(vec![0; room]);
    bytes
}

#[test]
fn headers_that_lie_are_refused_by_key_and_shape() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lie.safetensors");
    let tensor = |shape: &str, from: u64, to: u64| {
        format!(r#"{{"conv1.weight":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}}}"#)
    };
    let mut long = lying("{}", 0);
    long[..8].copy_from_slice(&60_000_000u64.to_le_bytes());
    for (bytes, part) in [
        (long, "claims 60000000 bytes, the file has 10"),
        (lying(&tensor("[64,3,7,7]", 0, 8), 8), "conv1.weight has shape [64,3,7,7], and gives it 8 bytes"),
        (lying(&tensor("[4294967296,4294967296,4]", 0, 8), 8), "conv1.weight has shape [4294967296,4294967296,4]"),
        (lying(&tensor("[2]", 0, 8), 4), "cut off, or made wrongly"),
        (lying(&tensor("[2]", 4, 12), 12), "conv1.weight overlaps"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = format!("{:#}", import(&path, &Hints::default()).unwrap_err());
        assert!(error.contains("lie.safetensors") && error.contains(part), "{error}");
    }
}

/// Any edit of a checkpoint ends in tensors or in one sentence.
#[test]
fn edits_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["torchvision.pth", "legacy.pth", "timm.safetensors"] {
        let whole = std::fs::read(fixture(name)).unwrap();
        let path = folder.path().join(name);
        bolero::check!().with_iterations(300).with_type::<(Vec<(u16, u8)>, u16)>().for_each(|(edits, cut)| {
            let mut bytes = whole.clone();
            for (at, value) in edits {
                let at = usize::from(*at) % bytes.len();
                bytes[at] = *value;
            }
            bytes.truncate(bytes.len() - usize::from(*cut % 1000));
            std::fs::write(&path, &bytes).unwrap();
            if let Err(error) = import(&path, &Hints::default()) {
                let text = format!("{error:#}");
                assert!(text.contains(name) && !text.contains('\n'), "{text}");
            }
        });
    }
}
