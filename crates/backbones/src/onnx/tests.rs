//! The graph is run, operator by operator as ONNX defines them, and must give what the backbone gives.

use super::*;
use crate::pretrained::export_tensors;
use crate::{BackboneConfig, ResNet, StemChoice};
use candle_core::Device;
use diptych_nn::{Backbone, Group, Init, ParamStore};

fn network(name: &str, stem: StemChoice, channels: usize) -> Result<(Architecture, ParamStore, ResNet)> {
    let config =
        BackboneConfig { name: name.into(), base: Some(8), stem, channels: Some(channels), ..Default::default() };
    let architecture = config.architecture(32)?;
    let mut params = ParamStore::new(3, &Device::Cpu);
    let net = ResNet::new(&mut params.scope(Group::Trunk), &architecture)?;
    // Statistics and scales of their own, so that none can be left out unnoticed.
    let x = Init::Normal(1.0).draw(&[8, 32, 32, channels], 5, "statistics", &Device::Cpu)?;
    net.forward_t(&((x * 2.0)? + 0.5)?, true)?;
    Ok((architecture, params, net))
}

/// Runs the graph on `[N, C, H, W]`.
fn run(model: &Model, x: &Tensor) -> Result<Tensor> {
    let graph = model.graph.as_ref().context("a graph")?;
    let mut values: HashMap<&str, Tensor> = HashMap::from([(graph.inputs[0].name.as_str(), x.clone())]);
    for weight in &graph.initializers {
        let floats = weight.raw_data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let dims: Vec<usize> = weight.dims.iter().map(|d| *d as usize).collect();
        values.insert(&weight.name, Tensor::from_vec(floats.collect::<Vec<f32>>(), dims, &Device::Cpu)?);
    }
    for node in &graph.nodes {
        let input = |i: usize| values.get(node.inputs[i].as_str()).cloned().context(node.inputs[i].clone());
        let ints = |name: &str| {
            let found = node.attributes.iter().find(|attribute| attribute.name == name);
            found.map(|attribute| attribute.ints[0] as usize).context(name.to_string())
        };
        let x = input(0)?;
        let y = match node.op_type.as_str() {
            "Conv" => x.conv2d(&input(1)?, ints("pads")?, ints("strides")?, 1, 1)?,
            "BatchNormalization" => {
                let column = |i| -> Result<Tensor> { Ok(input(i)?.reshape((1, (), 1, 1))?) };
                let epsilon = f64::from(node.attributes[0].f);
                let unit = x.broadcast_sub(&column(3)?)?.broadcast_div(&(column(4)? + epsilon)?.sqrt()?)?;
                unit.broadcast_mul(&column(1)?)?.broadcast_add(&column(2)?)?
            }
            "Relu" => x.relu()?,
            "Add" => (x + input(1)?)?,
            // Padding with 0 is padding with nothing behind a ReLU.
            "MaxPool" => {
                let p = ints("pads")?;
                let padded = x.pad_with_zeros(2, p, p)?.pad_with_zeros(3, p, p)?;
                padded.max_pool2d_with_stride(ints("kernel_shape")?, ints("strides")?)?
            }
            "GlobalAveragePool" => x.mean_keepdim(3)?.mean_keepdim(2)?,
            "Flatten" => x.flatten_from(node.attributes[0].i as usize)?,
            other => anyhow::bail!("no operator {other}"),
        };
        values.insert(&node.outputs[0], y);
    }
    values.remove(graph.outputs[0].name.as_str()).context("the output")
}

#[test]
fn the_graph_computes_what_the_backbone_does() -> Result<()> {
    for (name, stem, channels) in [
        ("resnet_tiny", StemChoice::Cifar, 3),
        ("resnet18", StemChoice::Imagenet, 3),
        ("resnet50", StemChoice::Strided, 5),
    ] {
        let (architecture, params, net) = network(name, stem, channels)?;
        let metadata = HashMap::from([("backbone".to_string(), name.to_string())]);
        let bytes = export(&architecture, &export_tensors(&params, 1)?, &metadata)?;
        let model = Model::decode(bytes.as_slice())?;
        assert_eq!((model.opset_import[0].version, model.metadata[0].value.as_str()), (OPSET, name));
        let x = Init::Normal(1.0).draw(&[2, 40, 32, channels], 7, "images", &Device::Cpu)?;
        let expected = net.forward_t(&x, false)?;
        let found = run(&model, &x.permute((0, 3, 1, 2))?.contiguous()?)?;
        assert_eq!(found.dims(), expected.dims());
        let gap = (found - &expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
        let size = expected.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(gap < 1e-4 * size, "{name}: {gap} of {size}");
    }
    Ok(())
}

#[test]
fn a_missing_weight_is_named() -> Result<()> {
    let (architecture, params, _) = network("resnet_tiny", StemChoice::Cifar, 3)?;
    let mut tensors = export_tensors(&params, 1)?;
    tensors.remove("layer2.0.bn1.running_var");
    let error = export(&architecture, &tensors, &HashMap::new()).unwrap_err().to_string();
    assert_eq!(error, "the weights have no layer2.0.bn1.running_var");
    Ok(())
}
