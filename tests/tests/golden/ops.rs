//! Training ops against PyTorch in float64, values and gradients: tests/fixtures/make_ops.py.

use std::collections::HashMap;

use candle_core::{Result, Tensor, Var};
use diptych_kernels as kernels;

use crate::place::{device, fixture_file};

fn fixture() -> HashMap<String, Tensor> {
    let path = fixture_file("ops.safetensors");
    candle_core::safetensors::load(path, &device()).unwrap()
}

fn close(what: &str, got: &Tensor, expected: &Tensor, tolerance: f32) -> Result<()> {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    let (got, expected) = (got.flatten_all()?.to_vec1::<f32>()?, expected.flatten_all()?.to_vec1::<f32>()?);
    for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
        assert!((g - e).abs() <= tolerance * e.abs().max(1.0), "{what}[{i}]: {g}, expected {e}");
    }
    Ok(())
}

/// The op on the case's inputs: its value, and the gradient of each input for the case's incoming gradient.
fn check(case: &str, inputs: &[&str], op: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<()> {
    let f = fixture();
    let get = |name: &str| &f[&format!("{case}.{name}")];
    let vars = inputs.iter().map(|name| Var::from_tensor(get(name))).collect::<Result<Vec<Var>>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = op(&tensors)?;
    close(&format!("{case}.y"), &y, get("y"), 2e-6)?;
    let grads = (y * get("dy"))?.sum_all()?.backward()?;
    for (name, var) in inputs.iter().zip(&vars) {
        close(&format!("{case}.d{name}"), grads.get(var).unwrap(), get(&format!("d{name}")), 5e-6)?;
    }
    Ok(())
}

#[test]
fn batch_norm_with_residual_and_relu() -> Result<()> {
    let f = fixture();
    check("batch_norm", &["x", "gamma", "beta", "residual"], |t| {
        let out = kernels::batch_norm_train(&t[0], Some(&t[1]), Some(&t[2]), Some(&t[3]), true, 1e-5)?;
        close("mean", &out.mean, &f["batch_norm.mean"], 1e-6)?;
        close("variance", &out.var, &f["batch_norm.var"], 1e-6)?;
        Ok(out.y)
    })
}

#[test]
fn max_pool() -> Result<()> {
    check("max_pool", &["x"], |t| kernels::max_pool2d(&t[0], 3, 2, 1))?;
    check("max_pool_ties", &["x"], |t| kernels::max_pool2d(&t[0], 3, 2, 1))
}

#[test]
fn average_pool() -> Result<()> {
    check("average_pool", &["x"], |t| kernels::global_avg_pool(&t[0]))
}

#[test]
fn linear() -> Result<()> {
    check("linear", &["x", "w", "bias"], |t| kernels::linear(&t[0], &t[1], Some(&t[2])))
}

#[test]
fn l2_normalize() -> Result<()> {
    check("l2_normalize", &["x"], |t| kernels::l2_normalize(&t[0]))
}
