//! Every convolution of ResNet-50 at 224 pixels and of the CIFAR ResNet-18, each shape once.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use diptych_kernels::conv2d;
use serde_json::{Value, json};

use super::layouts;
use crate::case::{Case, Precision, Runner, Scale, Tensors, Work};
use crate::input::random;

/// One pass of one convolution.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Conv {
    net: &'static str,
    shape: Shape,
    precision: Precision,
    backward: bool,
}

/// A convolution of square images.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shape {
    n: usize,
    /// Height and width of the input.
    side: usize,
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
}

impl Shape {
    fn padding(&self) -> usize {
        self.kernel / 2
    }

    fn x(&self) -> [usize; 4] {
        [self.n, self.side, self.side, self.inputs]
    }

    fn w(&self) -> [usize; 4] {
        [self.outputs, self.kernel, self.kernel, self.inputs]
    }

    fn y(&self) -> [usize; 4] {
        let side = (self.side + 2 * self.padding() - self.kernel) / self.stride + 1;
        [self.n, side, side, self.outputs]
    }
}

pub(super) fn cases(scale: Scale) -> Vec<Box<dyn Case>> {
    let nets = match scale {
        Scale::Cpu => vec![("resnet50", resnet50(16)), ("resnet18_cifar", resnet18_cifar(128))],
        Scale::Gpu => vec![("resnet50", resnet50(128)), ("resnet18_cifar", resnet18_cifar(1024))],
        Scale::Tiny => vec![("tiny", tiny())],
    };
    let mut cases: Vec<Box<dyn Case>> = Vec::new();
    for &precision in Precision::of(scale) {
        for (net, shapes) in &nets {
            for &shape in shapes {
                for backward in [false, true] {
                    cases.push(Box::new(Conv { net, shape, precision, backward }));
                }
            }
        }
    }
    cases
}

/// The bottleneck network (He et al. 2016, table 1), with the stride on the 3x3 convolution as in torchvision.
fn resnet50(n: usize) -> Vec<Shape> {
    let mut shapes = vec![Shape { n, side: 224, inputs: 3, outputs: 64, kernel: 7, stride: 2 }];
    let (mut side, mut inputs) = (56, 64);
    for (stage, width) in [64, 128, 256, 512].into_iter().enumerate() {
        let stride = if stage == 0 { 1 } else { 2 };
        let out = side / stride;
        for (side, inputs, outputs, kernel, stride) in [
            (side, inputs, width, 1, 1),
            (side, width, width, 3, stride),
            (out, width, 4 * width, 1, 1),
            (side, inputs, 4 * width, 1, stride),
            (out, 4 * width, width, 1, 1),
            (out, width, width, 3, 1),
        ] {
            add(&mut shapes, Shape { n, side, inputs, outputs, kernel, stride });
        }
        (side, inputs) = (out, 4 * width);
    }
    shapes
}

/// A stem, and one shape of each kind that the networks have.
fn tiny() -> Vec<Shape> {
    [(12, 3, 16, 7, 2), (6, 3, 16, 3, 1), (6, 16, 16, 3, 1), (6, 16, 24, 3, 2), (6, 16, 32, 1, 1), (6, 16, 32, 1, 2)]
        .map(|(side, inputs, outputs, kernel, stride)| Shape { n: 2, side, inputs, outputs, kernel, stride })
        .into()
}

/// The network of basic blocks behind a 3x3 stem (SimCLR, section B.9).
fn resnet18_cifar(n: usize) -> Vec<Shape> {
    let mut shapes = vec![Shape { n, side: 32, inputs: 3, outputs: 64, kernel: 3, stride: 1 }];
    let (mut side, mut inputs) = (32, 64);
    for (stage, width) in [64, 128, 256, 512].into_iter().enumerate() {
        let stride = if stage == 0 { 1 } else { 2 };
        add(&mut shapes, Shape { n, side, inputs, outputs: width, kernel: 3, stride });
        add(&mut shapes, Shape { n, side: side / stride, inputs: width, outputs: width, kernel: 3, stride: 1 });
        if stride > 1 {
            add(&mut shapes, Shape { n, side, inputs, outputs: width, kernel: 1, stride });
        }
        (side, inputs) = (side / stride, width);
    }
    shapes
}

fn add(shapes: &mut Vec<Shape>, shape: Shape) {
    if !shapes.contains(&shape) {
        shapes.push(shape);
    }
}

impl Conv {
    /// Images have no gradient.
    fn to_images(self) -> bool {
        self.shape.inputs == 3
    }
}

impl Case for Conv {
    fn name(&self) -> String {
        let Shape { side, inputs, outputs, kernel, stride, .. } = self.shape;
        let pass = if self.backward { "backward" } else { "forward" };
        let (net, dtype) = (self.net, self.precision.name());
        format!("conv_{net}_{kernel}x{kernel}s{stride}_{inputs}to{outputs}_at{side}_{pass}_{dtype}")
    }

    fn groups(&self) -> Vec<String> {
        let dtype = self.precision.name();
        vec![format!("conv {dtype}"), format!("conv {dtype} {}", if self.backward { "backward" } else { "forward" })]
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn spec(&self) -> Value {
        json!({
            "kind": "conv2d", "stride": self.shape.stride, "padding": self.shape.padding(), "backward": self.backward,
            "input_gradient": !self.to_images(),
        })
    }

    fn variants(&self) -> Vec<&'static str> {
        layouts()
    }

    fn work(&self) -> Work {
        let count = |dims: [usize; 4]| dims.iter().product::<usize>() as f64;
        let (x, w, y) = (count(self.shape.x()), count(self.shape.w()), count(self.shape.y()));
        let products = 2.0 * y * (self.shape.kernel * self.shape.kernel * self.shape.inputs) as f64;
        let one = self.precision.size();
        match (self.backward, self.to_images()) {
            (false, _) => Work { flops: products, bytes: one * (x + y) + 4.0 * w },
            (true, true) => Work { flops: products, bytes: one * (x + y) + 4.0 * w },
            (true, false) => Work { flops: 2.0 * products, bytes: one * (2.0 * x + y) + 8.0 * w },
        }
    }

    fn build(&self, device: &Device) -> Result<Box<dyn Runner>> {
        let fan = (self.shape.kernel * self.shape.kernel * self.shape.inputs) as f64;
        Ok(Box::new(Running {
            case: *self,
            x: random("x", &self.shape.x(), 1.0, self.precision.dtype(), device)?,
            w: random("w", &self.shape.w(), fan.sqrt().recip(), DType::F32, device)?,
            dy: random("dy", &self.shape.y(), 1.0, self.precision.dtype(), device)?,
        }))
    }
}

struct Running {
    case: Conv,
    x: Tensor,
    w: Tensor,
    dy: Tensor,
}

impl Running {
    fn tensors(&self) -> Result<Tensors> {
        let Shape { kernel, stride, .. } = self.case.shape;
        let padding = self.case.shape.padding();
        if !self.case.backward {
            return Ok([("y".into(), conv2d::forward(&self.x, &self.w, stride, padding)?)].into());
        }
        let mut tensors = Tensors::new();
        if !self.case.to_images() {
            let dx = conv2d::input_grad(&self.w, &self.dy, self.case.shape.x(), stride, padding, None)?;
            tensors.insert("x.grad".into(), dx);
        }
        let dw = conv2d::weight_grad(&self.x, &self.dy, [kernel, kernel], stride, padding)?;
        tensors.insert("w.grad".into(), dw);
        Ok(tensors)
    }
}

impl Runner for Running {
    fn inputs(&self) -> Result<Tensors> {
        let Self { x, w, dy, .. } = self;
        Ok([("x".into(), x.clone()), ("w".into(), w.clone()), ("dy".into(), dy.clone())].into())
    }

    fn outputs(&mut self) -> Result<Tensors> {
        self.tensors()
    }

    fn run(&mut self) -> Result<()> {
        self.tensors().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// He et al. 2016, table 1.
    #[test]
    fn the_shapes_are_those_of_the_networks() {
        let (large, small) = (resnet50(1), resnet18_cifar(1));
        // The stem and 6 in each of 4 stages, of which the first has two pairs of equal ones; the stem, 1, and 3 in each of 3.
        assert_eq!((large.len(), small.len()), (1 + 4 * 6 - 2, 1 + 1 + 3 * 3));
        assert!(large.contains(&Shape { n: 1, side: 14, inputs: 1024, outputs: 2048, kernel: 1, stride: 2 }));
        assert_eq!(large[0].y(), [1, 112, 112, 64]);
        assert_eq!(small.last().unwrap().y(), [1, 4, 4, 512]);
    }
}
