//! Segments against the same layers as separate nodes of Candle's graph.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use diptych_kernels as kernels;

use super::{activation_bytes, backward, segment};
use crate::{BatchNorm, Conv2d, Group, Init, Linear, ParamStore, global_avg_pool, max_pool2d, relu};

/// A residual block between a stem and a linear layer.
struct Net {
    store: ParamStore,
    stem: Conv2d,
    norms: Vec<BatchNorm>,
    convolutions: Vec<Conv2d>,
    shortcut: Conv2d,
    head: Linear,
}

impl Net {
    fn new() -> Result<Self> {
        let mut store = ParamStore::new(3, &Device::Cpu);
        let mut scope = store.scope(Group::Trunk);
        let stem = Conv2d::new(&mut scope.pp("stem"), 3, 8, 3, 1, 1)?;
        let norms = (0..3)
            .map(|i| BatchNorm::new(&mut scope.pp(format!("bn{i}")), [8, 12, 12][i], 1.0))
            .collect::<Result<_>>()?;
        let convolutions = vec![
            Conv2d::new(&mut scope.pp("conv0"), 8, 12, 3, 2, 1)?,
            Conv2d::new(&mut scope.pp("conv1"), 12, 12, 3, 1, 1)?,
        ];
        let shortcut = Conv2d::new(&mut scope.pp("shortcut"), 8, 12, 1, 2, 0)?;
        let head = Linear::new(&mut scope.pp("head"), 12, 5, true)?;
        Ok(Self { store, stem, norms, convolutions, shortcut, head })
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        segment(x, train, |tape, x| {
            let y = self.stem.record(tape, &x)?;
            let y = self.norms[0].record(tape, y, None, true)?;
            let x = max_pool2d(tape, &y, 3, 1, 1)?;
            let y = self.convolutions[0].record(tape, &x)?;
            let y = self.norms[1].record(tape, y, None, true)?;
            let y = self.convolutions[1].record(tape, &y)?;
            let shortcut = self.shortcut.record(tape, &x)?;
            let y = self.norms[2].record(tape, y, Some(&shortcut), true)?;
            let y = global_avg_pool(tape, &y)?;
            let y = self.head.record(tape, &y)?;
            relu(tape, &y)
        })
    }

    fn value(&self, name: &str) -> Tensor {
        self.store.get(name).unwrap().var.as_tensor().clone()
    }

    fn norm(&self, i: usize, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let (gamma, beta) = (self.value(&format!("bn{i}.weight")), self.value(&format!("bn{i}.bias")));
        Ok(kernels::batch_norm_train(x, Some(&gamma), Some(&beta), residual, true, 1e-5)?.y)
    }

    fn reference(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.norm(0, &kernels::conv2d(x, &self.value("stem.weight"), 1, 1)?, None)?;
        let x = kernels::max_pool2d(&y, 3, 1, 1)?;
        let y = self.norm(1, &kernels::conv2d(&x, &self.value("conv0.weight"), 2, 1)?, None)?;
        let shortcut = kernels::conv2d(&x, &self.value("shortcut.weight"), 2, 0)?;
        let y = self.norm(2, &kernels::conv2d(&y, &self.value("conv1.weight"), 1, 1)?, Some(&shortcut))?;
        let y = kernels::global_avg_pool(&y)?;
        kernels::relu(&kernels::linear(&y, &self.value("head.weight"), Some(&self.value("head.bias")))?)
    }

    fn assert_same(&self, a: &GradStore, b: &GradStore, factor: f64) -> Result<()> {
        for (name, param) in self.store.trainable() {
            let (a, b) = (a.get(&param.var).expect(name), b.get(&param.var).expect(name));
            assert!(relative(a, &(b * factor)?)? < 1e-5, "{name}");
        }
        Ok(())
    }
}

fn relative(a: &Tensor, b: &Tensor) -> Result<f64> {
    let norm = |t: &Tensor| t.to_dtype(DType::F64)?.sqr()?.sum_all()?.sqrt()?.to_scalar::<f64>();
    Ok(norm(&(a - b)?)? / norm(b)?.max(1e-30))
}

fn images() -> Result<Tensor> {
    Init::Normal(1.0).draw(&[4, 9, 7, 3], 1, "images", &Device::Cpu)
}

fn bits(t: &Tensor) -> Result<Vec<u32>> {
    Ok(t.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
}

#[test]
fn a_segment_equals_its_layers_as_nodes() -> Result<()> {
    let (net, x) = (Net::new()?, Var::from_tensor(&images()?)?);
    let (y, expected) = (net.forward(&x, true)?, net.reference(&x)?);
    assert!(relative(&y, &expected)? < 1e-6);
    let (a, b) = (backward(&y.sqr()?.sum_all()?)?, expected.sqr()?.sum_all()?.backward()?);
    net.assert_same(&a, &b, 1.0)?;
    assert!(relative(a.get(&x).unwrap(), b.get(&x).unwrap())? < 1e-5);
    Ok(())
}

#[test]
fn candles_own_backward_gives_the_same_gradients() -> Result<()> {
    let (net, x) = (Net::new()?, images()?);
    let a = backward(&net.forward(&x, true)?.sqr()?.sum_all()?)?;
    let b = net.forward(&x, true)?.sqr()?.sum_all()?.backward()?;
    for (name, param) in net.store.trainable() {
        assert_eq!(bits(a.get(&param.var).expect(name))?, bits(b.get(&param.var).expect(name))?, "{name}");
    }
    Ok(())
}

/// Two passes over the same images are twice the gradient: across segments, and with a node of Candle's own.
#[test]
fn gradients_of_a_parameter_used_more_than_once_add_up() -> Result<()> {
    let (net, x) = (Net::new()?, images()?);
    let loss = |y: Tensor| y.sqr()?.sum_all();
    let once = backward(&loss(net.forward(&x, true)?)?)?;
    let twice = backward(&(loss(net.forward(&x, true)?)? + loss(net.forward(&x, true)?)?)?)?;
    net.assert_same(&twice, &once, 2.0)?;
    let mixed = backward(&(loss(net.forward(&x, true)?)? + loss(net.reference(&x)?)?)?)?;
    net.assert_same(&mixed, &once, 2.0)
}

/// Within one segment: y = W W x, dL/dW by Candle's matrix products.
#[test]
fn a_layer_may_stand_twice_in_a_segment() -> Result<()> {
    let mut store = ParamStore::new(1, &Device::Cpu);
    let layer = Linear::new(&mut store.scope(Group::Trunk).pp("fc"), 4, 4, false)?;
    let (w, x) = (store.get("fc.weight").unwrap().var.clone(), Init::Normal(1.0).draw(&[3, 4], 1, "x", &Device::Cpu)?);
    let twice = |x: &Tensor| {
        segment(x, true, |tape, x| {
            let y = layer.record(tape, &x)?;
            layer.record(tape, &y)
        })
    };
    let expected = x.matmul(&w.t()?)?.matmul(&w.t()?)?.sqr()?.sum_all()?.backward()?;
    for gradients in [backward(&twice(&x)?.sqr()?.sum_all()?)?, twice(&x)?.sqr()?.sum_all()?.backward()?] {
        assert!(relative(gradients.get(&w).unwrap(), expected.get(&w).unwrap())? < 1e-6);
    }
    Ok(())
}

/// Batch norm writes its gradient over its input where it may: not where another layer or the caller still needs it.
#[test]
fn memory_in_use_is_not_written_over() -> Result<()> {
    let mut store = ParamStore::new(1, &Device::Cpu);
    let mut scope = store.scope(Group::Trunk);
    let first = Linear::new(&mut scope.pp("first"), 4, 4, false)?;
    let second = Linear::new(&mut scope.pp("second"), 4, 4, false)?;
    let norm = BatchNorm::new(&mut scope.pp("bn"), 4, 1.0)?;
    let x = Init::Normal(1.0).draw(&[6, 4], 1, "x", &Device::Cpu)?;
    // `second` keeps y for its weight's gradient, and its backward pass runs after batch norm's.
    let y = segment(&x, true, |tape, x| {
        let y = first.record(tape, &x)?;
        let z = second.record(tape, &y)?;
        norm.record(tape, y, Some(&z), true)
    })?;
    let value = |name: &str| store.get(name).unwrap().var.as_tensor().clone();
    let reference = x.matmul(&value("first.weight").t()?)?;
    let z = reference.matmul(&value("second.weight").t()?)?;
    let (gamma, beta) = (value("bn.weight"), value("bn.bias"));
    let expected = kernels::batch_norm_train(&reference, Some(&gamma), Some(&beta), Some(&z), true, 1e-5)?.y;
    let (a, b) = (backward(&y.sqr()?.sum_all()?)?, expected.sqr()?.sum_all()?.backward()?);
    for (name, param) in store.trainable() {
        assert!(relative(a.get(&param.var).unwrap(), b.get(&param.var).unwrap())? < 1e-5, "{name}");
    }

    let (mine, before) = (Var::from_tensor(&x)?, bits(&x)?);
    backward(&norm.forward(&mine, true)?.sqr()?.sum_all()?)?;
    assert_eq!(bits(&mine)?, before);
    Ok(())
}

#[test]
fn walking_back_twice_is_refused() -> Result<()> {
    let (net, x) = (Net::new()?, images()?);
    let loss = net.forward(&x, true)?.sum_all()?;
    backward(&loss)?;
    let error = backward(&loss).unwrap_err().to_string();
    assert!(error.contains("ran twice"), "{error}");
    // The failed pass leaves nothing behind.
    let gradients = net.forward(&x, true)?.sum_all()?.backward()?;
    assert!(gradients.get(&net.store.get("stem.weight").unwrap().var).is_some());
    Ok(())
}

#[test]
fn evaluation_keeps_nothing() -> Result<()> {
    let (net, x) = (Net::new()?, images()?);
    let (y, bytes) = activation_bytes(|| net.forward(&x, false));
    assert!(!y?.track_op());
    assert_eq!(bytes, 0);
    let (_, bytes) = activation_bytes(|| net.forward(&x, true));
    // Every layer's output once: stem, norm and pool [4, 9, 7, 8], four of [4, 5, 4, 12] and one more norm, [4, 12], 2 of [4, 5].
    assert_eq!(bytes, 4 * (3 * 4 * 9 * 7 * 8 + 5 * 4 * 5 * 4 * 12 + 4 * 12 + 2 * 4 * 5));
    Ok(())
}

#[test]
fn bf16_images_make_bf16_activations_and_f32_gradients() -> Result<()> {
    let (net, x) = (Net::new()?, images()?);
    let (y, expected) = (net.forward(&x.to_dtype(DType::BF16)?, true)?, net.reference(&x)?);
    assert_eq!(y.dtype(), DType::BF16);
    let y = y.to_dtype(DType::F32)?;
    assert!(relative(&y, &expected)? < 0.03);
    let (a, b) = (backward(&y.sqr()?.sum_all()?)?, expected.sqr()?.sum_all()?.backward()?);
    for (name, param) in net.store.trainable() {
        let (a, b) = (a.get(&param.var).unwrap(), b.get(&param.var).unwrap());
        assert_eq!(a.dtype(), DType::F32, "{name}");
        assert!(relative(a, b)? < 0.1, "{name}: {}", relative(a, b)?);
    }
    Ok(())
}
