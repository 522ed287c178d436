//! Optimizers over 20 steps against `torch.optim.SGD` and the published LARS codes: `tests/fixtures/make_optim.py`.

use std::collections::HashMap;

use candle_core::{DType, Result, Tensor, Var, safetensors};
use diptych_nn::{Group, Param, ParamStore, Role};
use diptych_optim::{OptimConfig, build};

use crate::place::{device, fixture_file};

const PARAMS: [(&str, Role); 4] = [
    ("bn.weight", Role::Norm),
    ("head.bias", Role::Bias),
    ("head.weight", Role::Weight),
    ("zero.weight", Role::Weight),
];

/// Follows the trajectory of a case with the optimizer of this recipe section, in both number types.
fn check(case: &str, config: &str) {
    let path = fixture_file("optim.safetensors");
    let fixture = safetensors::load(path, &device()).unwrap();
    // GPUs train in f32.
    let types = if device().is_cpu() { &[(DType::F32, 1e-5), (DType::F64, 1e-12)][..] } else { &[(DType::F32, 1e-5)] };
    for &(dtype, tolerance) in types {
        follow(&fixture, case, config, dtype, tolerance).unwrap();
    }
}

fn follow(fixture: &HashMap<String, Tensor>, case: &str, config: &str, dtype: DType, tolerance: f64) -> Result<()> {
    let config: OptimConfig = toml::from_str(&format!("lr = 1\n{config}")).unwrap();
    let (mut optimizer, _) = build(&config, 256, 1000, 10).unwrap();
    let mut params = ParamStore::new(0, &device());
    for (name, role) in PARAMS {
        let var = Var::from_tensor(&fixture[&format!("start/{name}")].to_dtype(dtype)?.copy()?)?;
        params.insert(name, Param { role, group: Group::Trunk, var })?;
    }
    for (k, lr) in fixture["rates"].to_vec1::<f64>()?.into_iter().enumerate() {
        // The gradient of <p, g> for p is g.
        let mut loss = Tensor::zeros((), dtype, &device())?;
        for (name, param) in params.iter() {
            let gradient = fixture[&format!("gradients/{name}")].get(k)?.to_dtype(dtype)?;
            loss = (loss + (param.var.as_tensor() * gradient)?.sum_all()?)?;
        }
        optimizer.step(&params, &loss.backward()?, lr)?;
        for (name, param) in params.iter() {
            let expected = fixture[&format!("{case}/{name}")].get(k)?;
            let error =
                (param.var.to_dtype(DType::F64)? - expected)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
            assert!(error <= tolerance, "{case} {dtype:?}: {name} is off by {error} after step {k}");
        }
    }
    Ok(())
}

#[test]
fn sgd_follows_pytorch() {
    check("sgd_plain", "name = 'sgd'\nmomentum = 0");
    check("sgd_momentum", "name = 'sgd'\nmomentum = 0.9");
    check("sgd_decay", "name = 'sgd'\nmomentum = 0.9\nweight_decay = 0.05\ndecay = 'all'");
    check("sgd_nesterov", "name = 'sgd'\nmomentum = 0.9\nweight_decay = 0.05\ndecay = 'all'\nnesterov = true");
}

#[test]
fn lars_follows_every_published_code() {
    let lars = |case, variant: &str| {
        let common = "name = 'lars'\nmomentum = 0.9\nweight_decay = 0.05\neta = 0.02\nbias_lr_ratio = 0.024";
        check(case, &format!("{common}\nvariant = {variant}"));
    };
    lars("lars_official", "'official'");
    lars("lars_bolts", "'bolts'");
    lars("lars_clip", "'clip'");
    lars("lars_bolts_clip", "['bolts', 'clip']");
    lars("lars_lr_in_momentum", "'lr_in_momentum'");
}
