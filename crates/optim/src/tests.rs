//! Groups, state and configuration; the update rules are held to PyTorch in `tests/tests/golden/optim.rs`.

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor};
use diptych_kernels::check::device;
use diptych_nn::{Group, Init, ParamStore, Role};

use super::*;

/// One parameter of each kind, all ones.
fn params() -> Result<ParamStore> {
    params_on(&device()?)
}

fn params_on(device: &Device) -> Result<ParamStore> {
    let mut store = ParamStore::new(0, device);
    for (group, name, role) in [
        (Group::Trunk, "conv.weight", Role::Weight),
        (Group::Trunk, "bn.weight", Role::Norm),
        (Group::Trunk, "bn.running_mean", Role::Buffer),
        (Group::Predictor, "head.weight", Role::Weight),
        (Group::Predictor, "head.bias", Role::Bias),
        (Group::Frozen, "fixed.weight", Role::Weight),
    ] {
        let (scope, leaf) = name.split_once('.').unwrap();
        store.scope(group).pp(scope).get(leaf, &[2], role, Init::Constant(1.0))?;
    }
    Ok(store)
}

/// The gradient 2 for every parameter but those named, whatever its role.
fn gradients(params: &ParamStore, without: &[&str]) -> Result<GradStore> {
    let mut loss = Tensor::zeros((), candle_core::DType::F32, params.device())?;
    for (_, param) in params.iter().filter(|(name, _)| !without.contains(name)) {
        loss = (loss + (param.var.as_tensor() * 2.0)?.sum_all()?)?;
    }
    loss.backward()
}

fn value(params: &ParamStore, name: &str) -> f32 {
    params.get(name).unwrap().var.to_vec1::<f32>().unwrap()[0]
}

fn config(text: &str) -> std::result::Result<OptimConfig, String> {
    toml::from_str(text).map_err(|e| e.message().to_string())
}

/// By hand: w - lr scale (2 + decay w), and with LARS eta |w| / |2 + decay w| times that.
#[test]
fn roles_and_groups_decide_about_decay_ratio_and_rate() -> Result<()> {
    let rules =
        Rules { bias_lr_ratio: 0.5, group_lr: GroupLr { predictor: 10.0, ..GroupLr::default() }, ..Rules::default() };
    let near = |params: &ParamStore, name, expected: f32| {
        let v = value(params, name);
        assert!((v - expected).abs() < 1e-6, "{name} is {v}, expected {expected}");
    };
    let p = params()?;
    Sgd::new(0.0, 0.5, false, rules).step(&p, &gradients(&p, &[])?, 0.01)?;
    near(&p, "conv.weight", 1.0 - 0.01 * 2.5);
    near(&p, "bn.weight", 1.0 - 0.005 * 2.0);
    near(&p, "head.weight", 1.0 - 0.1 * 2.5);
    near(&p, "head.bias", 1.0 - 0.05 * 2.0);
    near(&p, "bn.running_mean", 1.0);
    near(&p, "fixed.weight", 1.0);

    let p = params()?;
    Sgd::new(0.0, 0.5, false, Rules { decay: Decay::All, ..rules }).step(&p, &gradients(&p, &[])?, 0.01)?;
    near(&p, "bn.weight", 1.0 - 0.005 * 2.5);

    let p = params()?;
    Lars::new(0.0, 0.5, 0.1, Variant::default(), rules).step(&p, &gradients(&p, &[])?, 0.01)?;
    near(&p, "conv.weight", 1.0 - 0.01 * 0.1);
    near(&p, "head.weight", 1.0 - 0.1 * 0.1);
    near(&p, "bn.weight", 1.0 - 0.005 * 2.0);
    near(&p, "head.bias", 1.0 - 0.05 * 2.0);
    near(&p, "bn.running_mean", 1.0);
    near(&p, "fixed.weight", 1.0);
    Ok(())
}

#[test]
fn a_missing_gradient_leaves_the_parameter_and_its_momentum() -> Result<()> {
    let p = params()?;
    let mut optimizer = Sgd::new(0.9, 0.0, false, Rules::default());
    optimizer.step(&p, &gradients(&p, &["conv.weight"])?, 0.1)?;
    assert_eq!(value(&p, "conv.weight"), 1.0);
    assert!(optimizer.state().get("conv.weight").is_none());
    optimizer.step(&p, &gradients(&p, &[])?, 0.1)?;
    let moved = value(&p, "conv.weight");
    optimizer.step(&p, &gradients(&p, &["conv.weight"])?, 0.1)?;
    assert_eq!(value(&p, "conv.weight"), moved);
    assert_eq!(value(optimizer.state(), "conv.weight"), 2.0);
    Ok(())
}

/// Buffers taken over after 3 steps and 3 steps more equal 6 steps, bit for bit, wherever they lay between; the given tensors are copied.
#[test]
fn restored_momentum_goes_on_as_if_unbroken() -> Result<()> {
    let make = || Lars::new(0.9, 0.01, 0.02, Variant { lr_in_momentum: true, ..Variant::default() }, Rules::default());
    let unbroken = params()?;
    let mut optimizer = make();
    for step in 0..6 {
        optimizer.step(&unbroken, &gradients(&unbroken, &[])?, 0.1 * step as f64)?;
    }
    let resumed = params()?;
    let mut first = make();
    for step in 0..3 {
        first.step(&resumed, &gradients(&resumed, &[])?, 0.1 * step as f64)?;
    }
    let saved: HashMap<String, Tensor> =
        first.state().iter().map(|(name, p)| (name.to_string(), p.var.as_detached_tensor())).collect();
    assert_eq!(saved.len(), 4, "one buffer for each trainable parameter");
    let mut second = make();
    let read = saved.iter().map(|(name, buffer)| Ok((name.clone(), buffer.to_device(&Device::Cpu)?)));
    second.restore(&read.collect::<Result<_>>()?)?;
    for step in 3..6 {
        second.step(&resumed, &gradients(&resumed, &[])?, 0.1 * step as f64)?;
    }
    for (name, _) in unbroken.iter() {
        assert_eq!(value(&unbroken, name).to_bits(), value(&resumed, name).to_bits(), "{name}");
    }
    let before = value(first.state(), "conv.weight");
    second.restore(&saved)?;
    second.step(&resumed, &gradients(&resumed, &[])?, 0.1)?;
    assert_eq!(value(first.state(), "conv.weight"), before, "the saved tensor was written");
    Ok(())
}

#[test]
fn a_foreign_buffer_is_named() -> Result<()> {
    let p = params()?;
    let mut optimizer = Sgd::new(0.9, 0.0, false, Rules::default());
    let wrong = Tensor::zeros(3, candle_core::DType::F32, &Device::Cpu)?;
    optimizer.restore(&HashMap::from([("head.bias".to_string(), wrong)]))?;
    let error = optimizer.step(&p, &gradients(&p, &[])?, 0.1).unwrap_err().to_string();
    assert!(error.contains("head.bias: sgd: the buffer is [3] F32, the variable [2] F32"), "{error}");
    Ok(())
}

#[test]
fn the_first_non_finite_gradient_is_named_and_untrained_ones_are_not_asked() -> Result<()> {
    // A bad step on a GPU would stop those of the other tests.
    let p = params_on(&Device::Cpu)?;
    let mut grads = gradients(&p, &[])?;
    assert_eq!(first_non_finite(&p, &grads)?, None);
    for (name, bad) in [("bn.running_mean", f32::NAN), ("head.weight", f32::INFINITY), ("head.bias", f32::NAN)] {
        grads.insert(&p.get(name).unwrap().var, Tensor::new(&[0.0, bad], &Device::Cpu)?);
    }
    assert_eq!(first_non_finite(&p, &grads)?.as_deref(), Some("head.bias"));
    // A step finds the same, and changes nothing.
    let rules = Rules::default();
    let optimizers: [Box<dyn Optimizer>; 2] =
        [Box::new(Sgd::new(0.9, 0.0, false, rules)), Box::new(Lars::new(0.9, 0.5, 0.1, Variant::default(), rules))];
    for mut optimizer in optimizers {
        assert_eq!(optimizer.step(&p, &grads, 0.1)?.as_deref(), Some("head.bias"));
        assert_eq!(value(&p, "conv.weight"), 1.0);
    }
    Ok(())
}

#[test]
fn the_plan_says_who_decays_adapts_and_learns_at_which_rate() -> Result<()> {
    let lars = config("name = 'lars'\nlr = 0.2\nweight_decay = 1e-6\nbias_lr_ratio = 0.024").unwrap();
    assert_eq!(
        describe(&params()?, &lars),
        [
            "lars (official), momentum 0.9, eta 0.001",
            "2 tensors, 4 values: learning rate 0.0048 (at batch 256), no decay, not adapted",
            "2 tensors, 4 values: learning rate 0.2 (at batch 256), decay 0.000001, adapted by layer",
            "2 tensors, 4 values: buffers and frozen parameters: not touched",
        ]
    );
    let sgd = config("name = 'sgd'\nlr = 0.06\nnesterov = true\ndecay = 'all'\nweight_decay = 0.0005").unwrap();
    assert_eq!(
        describe(&params()?, &sgd)[..2],
        ["sgd, nesterov momentum 0.9", "4 tensors, 8 values: learning rate 0.06 (at batch 256), decay 0.0005",]
    );
    Ok(())
}

/// What a recipe leaves out appears when it is written, and reading that gives the same again.
#[test]
fn a_written_config_hides_nothing_and_comes_back() {
    let short = config("name = 'lars'\nlr = 0.2\nvariant = ['clip', 'bolts']\ngroup_lr.predictor = 10").unwrap();
    let text = toml::to_string(&short).unwrap();
    for line in [
        "name = \"lars\"",
        "lr_scaling = \"linear\"",
        "momentum = 0.9",
        "weight_decay = 0.0",
        "decay = \"weights\"",
        "bias_lr_ratio = 1.0",
        "eta = 0.001",
        "variant = [\"bolts\", \"clip\"]",
        "schedule = \"cosine\"",
        "warmup_epochs = 10.0",
        "final_ratio = 0.0",
        "predictor = 10.0",
        "trunk = 1.0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("nesterov") && !text.contains("gamma"), "{text}");
    assert_eq!(config(&text).unwrap(), short);
    let step = config("name = 'sgd'\nlr = 0.03\nschedule = 'step'\nmilestones = [120, 160]\neta = 0.1").unwrap();
    assert_eq!(step.eta, None);
    assert_eq!(config(&toml::to_string(&step).unwrap()).unwrap(), step);
}

#[test]
fn a_wrong_setting_is_told_by_its_key() {
    for (text, expected) in [
        ("lr = -1", "optim.lr must be positive, is -1"),
        ("lr = 0", "optim.lr must be positive, is 0"),
        ("lr = nan", "optim.lr must be positive, is NaN"),
        ("lr = 1\nmomentum = 1", "optim.momentum must be at least 0 and below 1, is 1"),
        ("lr = 1\nmomentum = 0\nnesterov = true", "optim.momentum must be above 0 with optim.nesterov = true, is 0"),
        ("lr = 1\nweight_decay = -1e-4", "optim.weight_decay must be at least 0, is -0.0001"),
        ("lr = 1\nwarmup_epochs = -1", "optim.warmup_epochs must be at least 0, is -1"),
        ("lr = 1\nfinal_ratio = 2", "optim.final_ratio must be from 0 to 1, is 2"),
        ("lr = 1\nschedule = 'step'", "needs optim.milestones"),
        ("lr = 1\ngroup_lr.trunk = -1", "optim.group_lr.trunk must be at least 0, is -1"),
        ("lr = 1\nlearning_rate = 1", "unknown field `learning_rate`, expected one of `name`, `lr`"),
    ] {
        let error = config(&format!("name = 'sgd'\n{text}")).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let error = config("name = 'lars'\nlr = 1\nvariant = ['clp']").unwrap_err();
    assert!(error.contains("unknown variant `clp`, expected one of `official`, `bolts`, `clip`"), "{error}");
    let long = config("name = 'lars'\nlr = 1").unwrap();
    let error = build(&long, 256, 50, 5).err().unwrap().to_string();
    assert_eq!(error, "optim.warmup_epochs = 10 leaves nothing of the run's 10 epochs; set it to 1 or train longer");
}

#[test]
fn the_rate_follows_the_batch() {
    let lr = |scaling: &str| {
        config(&format!("name = 'sgd'\nlr = 0.5\nlr_scaling = '{scaling}'")).unwrap().effective_lr(1024)
    };
    assert_eq!([lr("linear"), lr("sqrt"), lr("none")], [2.0, 1.0, 0.5]);
}

/// Epochs become steps: warm-up of 2 epochs of 5 steps, milestones at epochs 4 and 6.
#[test]
fn epochs_become_steps() {
    let at = |text: &str| {
        let config = config(&format!("name = 'sgd'\nlr = 1\nlr_scaling = 'none'\nwarmup_epochs = 2\n{text}")).unwrap();
        let (_, schedule) = build(&config, 64, 40, 5).unwrap();
        [5, 10, 19, 20, 30, 40].map(|step| (schedule.at(step) * 1e9).round() / 1e9)
    };
    assert_eq!(at("schedule = 'constant'"), [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]);
    assert_eq!(at("schedule = 'step'\nmilestones = [4, 6]"), [0.5, 1.0, 1.0, 0.1, 0.01, 0.01]);
    assert_eq!(at("final_ratio = 0.1"), [0.5, 1.0, 0.814503364, 0.775, 0.325, 0.1]);
}
