//! A frozen backbone as an ONNX graph.
//!
//! The graph takes `images` `[N, C, H, W]` (f32, normalized; N, H and W are free) and gives `features` `[N, F]`. Its operators are those of opset 17, its
//! initializers have torchvision's names, and batch norms are in evaluation mode: a runtime folds them into the convolutions when it loads the graph.

mod proto;

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use candle_core::Tensor;
use prost::Message;

use crate::{Architecture, BlockKind, Stem};
use proto::{
    Attribute, Dim, Entry, Extent, Graph, Model, Node, OperatorSet, Shape, TensorType, TensorValue, Type, ValueInfo,
};

/// The operators' version, and the least version of the format that has it.
const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;
/// Batch norm's epsilon, as everywhere in a ResNet.
const EPSILON: f32 = 1e-5;

/// The bytes of an ONNX file: the network of `architecture` with the weights `tensors`, which [`export_tensors`](crate::pretrained::export_tensors) gives;
/// `metadata` become the model's properties, in the order of their keys.
///
/// # Errors
/// If a tensor is missing, or can't be copied to the host.
pub fn export(
    architecture: &Architecture,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &HashMap<String, String>,
) -> Result<Vec<u8>> {
    let mut writer = Writer { tensors, nodes: Vec::new(), initializers: Vec::new() };
    let features = writer.network(architecture)?;
    let graph = Graph {
        nodes: writer.nodes,
        name: "backbone".into(),
        initializers: writer.initializers,
        inputs: vec![value("images", &[named("N"), known(architecture.channels), named("H"), named("W")])],
        outputs: vec![value(&features, &[named("N"), known(architecture.out_dim())])],
    };
    let properties: BTreeMap<&String, &String> = metadata.iter().collect();
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: "diptych".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: "A frozen backbone: images [N, C, H, W], normalized, to features [N, F].".into(),
        graph: Some(graph),
        opset_import: vec![OperatorSet { domain: String::new(), version: OPSET }],
        metadata: properties.into_iter().map(|(key, value)| Entry { key: key.clone(), value: value.clone() }).collect(),
    };
    Ok(model.encode_to_vec())
}

/// Puts nodes and weights one after the other; each method gives the name of its output.
struct Writer<'a> {
    tensors: &'a BTreeMap<String, Tensor>,
    nodes: Vec<Node>,
    initializers: Vec<TensorValue>,
}

impl Writer<'_> {
    fn network(&mut self, architecture: &Architecture) -> Result<String> {
        let (kernel, stride, padding) = architecture.stem.convolution();
        let mut x = self.convolution("images", "conv1", kernel, stride, padding)?;
        x = self.norm(&x, "bn1")?;
        x = self.node("Relu", "relu", &[&x], Vec::new());
        if architecture.stem == Stem::Imagenet {
            x = self.node("MaxPool", "maxpool", &[&x], window(3, 2, 1));
        }
        let mut inputs = architecture.base;
        for (i, &depth) in architecture.depths[..architecture.layers()].iter().enumerate() {
            for block in 0..depth {
                let stride = if i > 0 && block == 0 { 2 } else { 1 };
                let outputs = (architecture.base << i) * architecture.block.expansion();
                let shortcut = stride != 1 || inputs != outputs;
                x = self.block(&x, &format!("layer{}.{block}", i + 1), architecture.block, stride, shortcut)?;
                inputs = outputs;
            }
        }
        let pooled = self.node("GlobalAveragePool", "avgpool", &[&x], Vec::new());
        Ok(self.node("Flatten", "features", &[&pooled], vec![int("axis", 1)]))
    }

    fn block(&mut self, x: &str, name: &str, kind: BlockKind, stride: usize, shortcut: bool) -> Result<String> {
        // Kernel and stride of each convolution.
        let plan: &[(usize, usize)] = match kind {
            BlockKind::Basic => &[(3, stride), (3, 1)],
            BlockKind::Bottleneck => &[(1, 1), (3, stride), (1, 1)],
        };
        let mut y = x.to_string();
        for (i, &(kernel, stride)) in plan.iter().enumerate() {
            y = self.convolution(&y, &format!("{name}.conv{}", i + 1), kernel, stride, kernel / 2)?;
            y = self.norm(&y, &format!("{name}.bn{}", i + 1))?;
            if i + 1 < plan.len() {
                y = self.node("Relu", &format!("{name}.relu{}", i + 1), &[&y], Vec::new());
            }
        }
        let around = if shortcut {
            let down = self.convolution(x, &format!("{name}.downsample.0"), 1, stride, 0)?;
            self.norm(&down, &format!("{name}.downsample.1"))?
        } else {
            x.to_string()
        };
        let sum = self.node("Add", &format!("{name}.add"), &[&y, &around], Vec::new());
        Ok(self.node("Relu", &format!("{name}.relu"), &[&sum], Vec::new()))
    }

    fn convolution(&mut self, x: &str, name: &str, kernel: usize, stride: usize, padding: usize) -> Result<String> {
        let weight = self.weight(&format!("{name}.weight"))?;
        Ok(self.node("Conv", name, &[x, &weight], window(kernel, stride, padding)))
    }

    fn norm(&mut self, x: &str, name: &str) -> Result<String> {
        let mut inputs = vec![x.to_string()];
        for part in ["weight", "bias", "running_mean", "running_var"] {
            inputs.push(self.weight(&format!("{name}.{part}"))?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        Ok(self.node("BatchNormalization", name, &inputs, vec![float("epsilon", EPSILON)]))
    }

    /// Takes a tensor into the graph.
    fn weight(&mut self, name: &str) -> Result<String> {
        let tensor = self.tensors.get(name).with_context(|| format!("the weights have no {name}"))?;
        let values = tensor.flatten_all()?.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>()?;
        self.initializers.push(TensorValue {
            dims: tensor.dims().iter().map(|d| *d as i64).collect(),
            data_type: proto::F32,
            name: name.into(),
            raw_data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        });
        Ok(name.into())
    }

    fn node(&mut self, op: &str, name: &str, inputs: &[&str], attributes: Vec<Attribute>) -> String {
        self.nodes.push(Node {
            inputs: inputs.iter().map(|input| (*input).to_string()).collect(),
            outputs: vec![name.into()],
            name: name.into(),
            op_type: op.into(),
            attributes,
        });
        name.into()
    }
}

fn window(kernel: usize, stride: usize, padding: usize) -> Vec<Attribute> {
    let ints = |name: &str, values: Vec<usize>| Attribute {
        name: name.into(),
        ints: values.into_iter().map(|value| value as i64).collect(),
        kind: proto::INTS_ATTRIBUTE,
        ..Attribute::default()
    };
    vec![ints("kernel_shape", vec![kernel; 2]), ints("strides", vec![stride; 2]), ints("pads", vec![padding; 4])]
}

fn int(name: &str, i: i64) -> Attribute {
    Attribute { name: name.into(), i, kind: proto::INT_ATTRIBUTE, ..Attribute::default() }
}

fn float(name: &str, f: f32) -> Attribute {
    Attribute { name: name.into(), f, kind: proto::FLOAT_ATTRIBUTE, ..Attribute::default() }
}

fn known(extent: usize) -> Dim {
    Dim { extent: Some(Extent::Value(extent as i64)) }
}

fn named(name: &str) -> Dim {
    Dim { extent: Some(Extent::Name(name.into())) }
}

fn value(name: &str, dims: &[Dim]) -> ValueInfo {
    let tensor = TensorType { elements: proto::F32, shape: Some(Shape { dims: dims.to_vec() }) };
    ValueInfo { name: name.into(), of: Some(Type { tensor: Some(tensor) }) }
}

#[cfg(test)]
mod tests;
