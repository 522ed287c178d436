//! Files of our own and of others, in and out.

use candle_core::Device;
use diptych_nn::Group;
use safetensors::SafeTensors;

use super::*;
use crate::{ResNet, StemChoice};

fn tiny(seed: u64, base: usize) -> (ParamStore, BackboneConfig, Architecture) {
    let config = BackboneConfig { name: "resnet_tiny".into(), base: Some(base), ..Default::default() };
    let architecture = config.architecture(32).unwrap();
    let mut store = ParamStore::new(seed, &Device::Cpu);
    ResNet::new(&mut store.scope(Group::Trunk), &architecture).unwrap();
    (store, config, architecture)
}

fn values(store: &ParamStore) -> Vec<Vec<f32>> {
    store.iter().map(|(_, p)| p.var.flatten_all().unwrap().to_vec1().unwrap()).collect()
}

fn write(dir: &tempfile::TempDir, tensors: &BTreeMap<String, Tensor>, layout: Option<&str>) -> String {
    let path = dir.path().join("weights.safetensors");
    let metadata = layout.map(|layout| HashMap::from([("layout".to_string(), layout.to_string())]));
    std::fs::write(&path, safetensors::serialize(tensors, metadata).unwrap()).unwrap();
    path.to_str().unwrap().to_string()
}

fn error(result: Result<Loaded>) -> String {
    format!("{:#}", result.unwrap_err())
}

#[test]
fn an_export_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (store, config, architecture) = tiny(1, 4);
    let path = dir.path().join("out.safetensors");
    let bytes = export(&store, 7, export_metadata(&config, &architecture)).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let (other, ..) = tiny(2, 4);
    let loaded = load(&other, path.to_str().unwrap()).unwrap();
    assert_eq!((loaded.tensors, loaded.ignored.len()), (store.len(), 0));
    assert_eq!(values(&store), values(&other));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("conv1.weight").unwrap().shape(), [4, 3, 3, 3]);
    assert_eq!(file.tensor("bn1.num_batches_tracked").unwrap().dtype(), safetensors::Dtype::I64);
    assert_eq!(file.tensor("bn1.num_batches_tracked").unwrap().data(), 7i64.to_le_bytes());
}

/// A base of 3 makes conv1 [3, 3, 3, 3], whose shape says nothing.
#[test]
fn metadata_decides_the_layout() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ..) = tiny(1, 3);
    let path = write(&dir, &store.tensors(Layout::Ohwi).unwrap(), Some("ohwi"));
    let (other, ..) = tiny(2, 3);
    load(&other, &path).unwrap();
    assert_eq!(values(&store), values(&other));
    let path = write(&dir, &store.tensors(Layout::Ohwi).unwrap(), Some("nchw"));
    assert!(error(load(&other, &path)).contains("layout=nchw in the metadata is not known"));
}

#[test]
fn wrappers_are_taken_off_and_other_parts_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ..) = tiny(1, 4);
    let tensors = export_tensors(&store, 0).unwrap();
    let extra = Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap();
    for prefix in ["", "module.", "module.backbone.", "backbone."] {
        let mut wrapped: BTreeMap<_, _> =
            tensors.iter().map(|(name, value)| (format!("{prefix}{name}"), value.clone())).collect();
        wrapped.insert(format!("{prefix}fc.bias"), extra.clone());
        let mut expected = vec![format!("{prefix}fc.bias")];
        if prefix.contains("backbone") {
            wrapped.insert("projector.0.weight".into(), extra.clone());
            expected.push("projector.0.weight".into());
            expected.sort();
        }
        let (other, ..) = tiny(2, 4);
        assert_eq!(load(&other, &write(&dir, &wrapped, None)).unwrap().ignored, expected);
        assert_eq!(values(&store), values(&other), "{prefix}");
    }
}

#[test]
fn weights_that_do_not_fit_are_told_by_key_and_shapes_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ..) = tiny(1, 4);
    let before = values(&store);
    let (wide, ..) = tiny(2, 8);
    let text = error(load(&store, &write(&dir, &export_tensors(&wide, 0).unwrap(), None)));
    assert!(text.contains("bn1.bias has shape [8], the backbone expects [4]"), "{text}");
    let mut tensors = export_tensors(&tiny(2, 4).0, 0).unwrap();
    tensors.insert("layer1.1.conv1.weight".into(), tensors["layer1.0.conv1.weight"].clone());
    let text = error(load(&store, &write(&dir, &tensors, None)));
    assert!(text.contains("layer1.1.conv1.weight with shape [4, 4, 3, 3] is no parameter of the backbone"), "{text}");
    tensors.remove("layer3.0.conv2.weight");
    let text = error(load(&store, &write(&dir, &tensors, None)));
    assert!(text.contains("layer3.0.conv2.weight is missing"), "{text}");
    assert_eq!(values(&store), before);
}

#[test]
fn files_that_are_no_weights_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let (store, ..) = tiny(1, 4);
    for (bytes, expected) in
        [(&b"PK\x03\x04"[..], "not a whole zip archive"), (b"", "not a whole"), (b"12345678{}", "not a whole")]
    {
        std::fs::write(&path, bytes).unwrap();
        let text = error(load(&store, path.to_str().unwrap()));
        assert!(text.contains(expected), "{text}");
    }
    assert!(error(load(&store, "no/such/file")).contains("there is no file no/such/file"));
}

#[test]
fn hub_names_have_a_revision_and_a_file() {
    let parts = |text: &str| parse_hub(text).unwrap();
    assert_eq!(parts("a/b"), ("a/b".into(), "main".into(), "model.safetensors".into()));
    assert_eq!(parts("a/b@v1/x/y.safetensors"), ("a/b".into(), "v1".into(), "x/y.safetensors".into()));
    for text in ["a", "a/", "/b", "a/b@", "a/b/"] {
        assert!(parse_hub(text).is_err(), "{text}");
    }
}

#[test]
fn the_metadata_says_how_to_build_the_module() {
    let (_, config, _) = tiny(1, 4);
    let config = BackboneConfig { stem: StemChoice::Imagenet, ..config };
    let metadata = export_metadata(&config, &config.architecture(32).unwrap());
    assert_eq!(metadata["stem"], "imagenet");
    assert!(metadata["pytorch"].contains("model = WideResNet(BasicBlock, [1, 1, 1, 1])"));
}
