//! A batch in parts has the loss and the gradients of the whole.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use diptych_comm::{Collective, Local, threads};
use diptych_nn::activation_bytes;

use super::{batch_at, build_on, distance, norm, state, step};
use crate::{Entry, Parts, REGISTRY, pass};

/// What a pass gives: the loss, named gradients, and running statistics with all other state.
type Seen = (f64, Vec<(String, Tensor)>, Vec<(String, Tensor)>);

/// One pass of `rows` images over the ranks of `comm`.
fn one_pass(
    entry: &Entry,
    rows: usize,
    parts: Parts,
    bn_groups: usize,
    comm: &Arc<dyn Collective>,
    more: &str,
) -> Result<Seen> {
    let own = batch_at(entry, rows, 0)?.rows(comm.rank() * rows / comm.size(), rows / comm.size())?;
    let mut method = build_on(entry, 3, comm, bn_groups, more)?;
    if method.surveys() {
        // Embeddings to cluster, which do not depend on the groups of statistics that are compared.
        let mut memory = build_on(entry, 3, comm, 1, more)?;
        memory.survey(&own)?;
        for ((_, store), (_, filled)) in method.extra_state().into_iter().zip(memory.extra_state()) {
            for (name, param) in store.iter() {
                param.var.set(&filled.get(name).unwrap().var.as_detached_tensor())?;
            }
        }
    }
    method.before_step(step(0))?;
    let seen = pass(method.as_mut(), &own, parts, comm.as_ref())?;
    let gradients = seen.gradients.expect("a finite loss");
    let named = method
        .params()
        .trainable()
        .filter_map(|(name, param)| Some((name.to_string(), gradients.get(&param.var)?.clone())));
    let named = named.collect();
    method.after_step(step(0))?;
    Ok((f64::from(seen.forward.loss.total.to_scalar::<f32>()?), named, state(method.as_ref())?))
}

/// The difference of the loss, and the largest of a parameter's gradient, as shares of them; small gradients are measured by a
/// thousandth of all.
fn difference(seen: &Seen, truth: &Seen) -> Result<(f64, f64)> {
    let squares = truth.1.iter().map(|(_, gradient)| Ok(norm(gradient)?.powi(2))).sum::<Result<f64>>()?;
    let mut worst: f64 = 0.0;
    assert_eq!(seen.1.len(), truth.1.len());
    for ((name, gradient), (other, expected)) in seen.1.iter().zip(&truth.1) {
        assert_eq!(name, other);
        worst = worst.max(distance(gradient, expected)? / norm(expected)?.max(1e-3 * squares.sqrt()));
    }
    Ok(((seen.0 - truth.0).abs() / truth.0.abs().max(1e-3), worst))
}

fn local() -> Arc<dyn Collective> {
    Arc::new(Local)
}

/// Every method, and MoCo's dictionary of the batch's own keys. Keys go through their encoder in the order of the queries, since another order
/// would stay within a chunk; AdCo, whose order can't be told, is left out.
fn cases() -> Vec<(&'static Entry, &'static str)> {
    let in_order = |entry: &'static Entry| match entry.name {
        "moco" => Some((entry, "shuffle = false")),
        "adco" => None,
        _ => Some((entry, "")),
    };
    let mut cases: Vec<_> = REGISTRY.iter().filter_map(in_order).collect();
    cases.push((crate::find("moco").unwrap(), "dictionary = \"end_to_end\"\nshuffle = false"));
    cases
}

#[test]
fn chunks_under_one_loss_equal_the_batch_with_as_many_groups_of_statistics() -> Result<()> {
    for (entry, more) in cases() {
        for (chunks, groups) in [(2, 2), (4, 4), (2, 4)] {
            let whole = one_pass(entry, 12, Parts::Whole, groups, &local(), more)?;
            let cached = one_pass(entry, 12, Parts::Cache(chunks), groups / chunks, &local(), more)?;
            let (loss, gradients) = difference(&cached, &whole)?;
            println!("{} in {chunks} chunks: loss {loss:.1e}, gradients {gradients:.1e}", entry.name);
            assert!(loss < 1e-5 && gradients < 1e-5, "{} in {chunks}: {loss:.1e}, {gradients:.1e}", entry.name);
            // Targets, queues and memories too, but for running statistics, which move once a chunk.
            for ((name, value), (_, expected)) in cached.2.iter().zip(&whole.2) {
                let off = distance(value, expected)? / norm(expected)?.max(1e-3);
                assert!(name.contains("running_") || off < 1e-5, "{}: {name} is off by {off:.1e}", entry.name);
            }
        }
    }
    Ok(())
}

#[test]
fn chunks_and_ranks_go_together() -> Result<()> {
    for (entry, more) in cases() {
        let all = threads::run(2, |comm| one_pass(entry, 12, Parts::Cache(3), 2, &comm, more)).unwrap();
        // Six groups of two images: the chunks of rank 0, then those of rank 1.
        let whole = one_pass(entry, 12, Parts::Whole, 6, &local(), more)?;
        for seen in &all {
            let (loss, gradients) = difference(seen, &whole)?;
            assert!(loss < 1e-5 && gradients < 2e-5, "{}: {loss:.1e}, {gradients:.1e}", entry.name);
        }
    }
    Ok(())
}

#[test]
fn micro_batches_equal_the_batch_where_images_are_not_coupled() -> Result<()> {
    let mut plain = 0;
    for (entry, more) in cases() {
        if build_on(entry, 3, &local(), 1, more)?.couples_batch() {
            continue;
        }
        plain += 1;
        let whole = one_pass(entry, 12, Parts::Whole, 3, &local(), more)?;
        let summed = one_pass(entry, 12, Parts::Accumulate(3), 1, &local(), more)?;
        let (loss, gradients) = difference(&summed, &whole)?;
        println!("{} in micro-batches: loss {loss:.1e}, gradients {gradients:.1e}", entry.name);
        // Sums over micro-batches round in another order than those of the batch.
        assert!(loss < 1e-5 && gradients < 1e-4, "{}: {loss:.1e}, {gradients:.1e}", entry.name);
    }
    assert!(plain >= 3);
    Ok(())
}

/// Forward passes without a way back keep nothing, so the chunks' second passes are all that is kept, one after the other.
#[test]
fn each_chunk_keeps_its_own_activations_alone() -> Result<()> {
    let entry = crate::find("simclr").unwrap();
    let bytes = |parts: Parts, rows: usize| -> Result<usize> {
        let mut method = build_on(entry, 3, &local(), 1, "")?;
        let batch = batch_at(entry, rows, 0)?;
        let (seen, bytes) = activation_bytes(|| pass(method.as_mut(), &batch, parts, &Local));
        seen?;
        Ok(bytes)
    };
    // Summed over the four chunks, which never live together: those of the whole batch, not twice as many.
    assert_eq!(bytes(Parts::Cache(4), 16)?, bytes(Parts::Whole, 16)?);
    assert_eq!(bytes(Parts::Whole, 4)? * 4, bytes(Parts::Whole, 16)?);
    Ok(())
}

#[test]
fn parts_must_be_even() -> Result<()> {
    let entry = crate::find("simclr").unwrap();
    let mut method = build_on(entry, 3, &local(), 1, "")?;
    let error = pass(method.as_mut(), &batch_at(entry, 10, 0)?, Parts::Cache(4), &Local).unwrap_err().to_string();
    assert!(error.contains("10 images do not divide into 4 parts"), "{error}");
    Ok(())
}
