//! A method that was written down and read again goes on as if nothing had happened.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use diptych_comm::{Collective, Local};
use diptych_nn::Layout;
use diptych_optim::Optimizer;

use super::{batch_at, build_on, optimizer, state, step};
use crate::{Entry, Method, Parts, REGISTRY, pass};

/// Images in a step: two steps fill every queue, the third goes around.
const ROWS: usize = 10;

type Pair = (Box<dyn Method>, Box<dyn Optimizer>);

fn begin(entry: &Entry) -> Result<Pair> {
    let comm: Arc<dyn Collective> = Arc::new(Local);
    let mut method = build_on(entry, 5, &comm, 1, "")?;
    if method.surveys() {
        (0..2).try_for_each(|index| method.survey(&batch_at(entry, ROWS, index)?))?;
    }
    Ok((method, optimizer()))
}

fn steps(entry: &Entry, (method, optimizer): &mut Pair, from: u64, to: u64) -> Result<()> {
    for index in from..to {
        method.before_step(step(index))?;
        let gradients = pass(method.as_mut(), &batch_at(entry, ROWS, index)?, Parts::Whole, &Local)?.gradients;
        optimizer.step(method.params(), &gradients.expect("a finite loss"), 0.02)?;
        method.after_step(step(index))?;
    }
    Ok(())
}

/// All of a run's state as the bytes of a file.
fn write((method, optimizer): &Pair) -> Result<Vec<u8>> {
    let mut tensors = state(method.as_ref())?;
    let buffers = optimizer.state().tensors(Layout::Ohwi)?;
    tensors.extend(buffers.into_iter().map(|(name, buffer)| (format!("optim/{name}"), buffer)));
    safetensors::serialize(tensors.iter().map(|(name, t)| (name, t)), None).map_err(candle_core::Error::wrap)
}

/// A run at its start, brought to where those bytes were written.
fn read(entry: &Entry, bytes: &[u8]) -> Result<Pair> {
    let (method, mut optimizer) = begin(entry)?;
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?;
    let below = |store: &str| -> HashMap<String, Tensor> {
        let prefix = format!("{store}/");
        tensors.iter().filter_map(|(name, t)| Some((name.strip_prefix(&prefix)?.to_string(), t.clone()))).collect()
    };
    method.params().load(&below("params"), Layout::Ohwi)?;
    for (name, store) in method.extra_state() {
        store.load(&below(name), Layout::Ohwi)?;
    }
    optimizer.restore(&below("optim"))?;
    Ok((method, optimizer))
}

#[test]
fn resume_equals_no_resume() -> Result<()> {
    for entry in REGISTRY {
        let mut unbroken = begin(entry)?;
        steps(entry, &mut unbroken, 0, 3)?;
        let saved = write(&unbroken)?;
        let mut resumed = read(entry, &saved)?;
        assert!(write(&resumed)? == saved, "{}: what was read is not what was written", entry.name);
        steps(entry, &mut unbroken, 3, 5)?;
        steps(entry, &mut resumed, 3, 5)?;
        let names = state(unbroken.0.as_ref())?.into_iter().zip(state(resumed.0.as_ref())?);
        for ((name, a), (_, b)) in names {
            assert_eq!(super::distance(&a, &b)?, 0.0, "{}: {name} differs after a resume", entry.name);
        }
        assert!(write(&unbroken)? == write(&resumed)?, "{}: the optimizer differs after a resume", entry.name);
    }
    Ok(())
}

/// Without any one of its stores a method goes on differently, so none is there for nothing.
#[test]
fn every_store_is_needed() -> Result<()> {
    for entry in REGISTRY {
        let mut unbroken = begin(entry)?;
        steps(entry, &mut unbroken, 0, 3)?;
        let saved = write(&unbroken)?;
        steps(entry, &mut unbroken, 3, 5)?;
        let stores: Vec<&str> = unbroken.0.extra_state().into_iter().map(|(name, _)| name).collect();
        for left_out in stores {
            let mut resumed = read(entry, &saved)?;
            let fresh = begin(entry)?;
            for ((name, store), (_, start)) in resumed.0.extra_state().into_iter().zip(fresh.0.extra_state()) {
                if name == left_out {
                    store.load(&start.tensors(Layout::Ohwi)?.into_iter().collect(), Layout::Ohwi)?;
                }
            }
            steps(entry, &mut resumed, 3, 5)?;
            let (whole, partial) = (state(unbroken.0.as_ref())?, state(resumed.0.as_ref())?);
            let mut learned = whole.iter().zip(&partial).filter(|((name, _), _)| name.starts_with("params/"));
            let differs = learned.any(|((_, a), (_, b))| super::distance(a, b).is_ok_and(|off| off > 0.0));
            assert!(differs, "{}: {left_out} is saved and changes nothing", entry.name);
        }
    }
    Ok(())
}
