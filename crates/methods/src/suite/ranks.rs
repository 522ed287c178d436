//! Ranks that share a batch compute what one rank computes from all of it.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use diptych_comm::{Collective, Local, threads};

use super::{batch_at, build_on, distance, norm, optimizer, state, step, taken_away};
use crate::{Entry, Parts, Pass, REGISTRY, pass};

/// Rows of a rank: odd, and no divisor of a queue's length.
const ROWS: usize = 5;
const STEPS: u64 = 2;

/// What two steps give: losses, gradients of each step by parameter, and all state after the last.
struct Seen {
    losses: Vec<f64>,
    gradients: Vec<Vec<(String, Tensor)>>,
    state: Vec<(String, Tensor)>,
}

/// Two steps of one rank, whose rows are its share of `rows`; `averaged` takes the mean of gradients in the place of `comm`.
fn two_steps(
    entry: &Entry,
    rows: usize,
    comm: &Arc<dyn Collective>,
    averaged: &dyn Collective,
    more: &str,
) -> Result<Seen> {
    let own = |index| batch_at(entry, rows, index)?.rows(comm.rank() * rows / comm.size(), rows / comm.size());
    let mut method = build_on(entry, 7, comm, 1, more)?;
    if method.surveys() {
        (0..STEPS).try_for_each(|index| method.survey(&own(index)?))?;
    }
    let mut optimizer = optimizer();
    let mut seen = Seen { losses: Vec::new(), gradients: Vec::new(), state: Vec::new() };
    for index in 0..STEPS {
        method.before_step(step(index))?;
        let Pass { forward, gradients } = pass(method.as_mut(), &own(index)?, Parts::Whole, averaged)?;
        seen.losses.push(f64::from(forward.loss.total.to_scalar::<f32>()?));
        let gradients = gradients.expect("a finite loss");
        let felt = method.params().trainable().filter(|(name, _)| !taken_away(entry.name, name));
        let named = felt.filter_map(|(name, param)| Some((name.to_string(), gradients.get(&param.var)?.clone())));
        seen.gradients.push(named.collect());
        assert_eq!(optimizer.step(method.params(), &gradients, 1e-3)?, None);
        method.after_step(step(index))?;
    }
    seen.state = state(method.as_ref())?;
    Ok(seen)
}

/// The largest difference of loss and gradients from those of one rank, as a share of them; a gradient below a thousandth of all is measured by
/// that.
fn difference(seen: &Seen, truth: &Seen) -> Result<f64> {
    let mut worst: f64 = 0.0;
    for (loss, expected) in seen.losses.iter().zip(&truth.losses) {
        worst = worst.max((loss - expected).abs() / expected.abs().max(1e-3));
    }
    for (gradients, expected) in seen.gradients.iter().zip(&truth.gradients) {
        assert_eq!(gradients.len(), expected.len());
        let squares = expected.iter().map(|(_, gradient)| Ok(norm(gradient)?.powi(2))).sum::<Result<f64>>()?;
        let least = 1e-3 * squares.sqrt();
        for ((name, gradient), (other, expected)) in gradients.iter().zip(expected) {
            assert_eq!(name, other);
            worst = worst.max(distance(gradient, expected)? / norm(expected)?.max(least));
        }
    }
    Ok(worst)
}

fn alone(entry: &Entry, ranks: usize, more: &str) -> Result<Seen> {
    two_steps(entry, ranks * ROWS, &(Arc::new(Local) as Arc<dyn Collective>), &Local, more)
}

#[test]
fn ranks_have_the_loss_gradients_and_state_of_one_with_all_rows() -> Result<()> {
    for entry in REGISTRY {
        for ranks in [2, 4] {
            let truth = alone(entry, ranks, "")?;
            let all = threads::run(ranks, |comm| two_steps(entry, ranks * ROWS, &comm, comm.as_ref(), "")).unwrap();
            for seen in &all {
                let off = difference(seen, &truth)?;
                println!("{} on {ranks} ranks: {off:.1e}", entry.name);
                assert!(off < 3e-5, "{} on {ranks} ranks is off by {off:.1e}", entry.name);
                for ((name, value), (other, expected)) in seen.state.iter().zip(&truth.state) {
                    assert_eq!(name, other);
                    let off = distance(value, expected)? / norm(expected)?.max(1e-3);
                    assert!(off < 1e-4, "{} on {ranks} ranks: {name} is off by {off:.1e}", entry.name);
                }
            }
            // All ranks hold the same bits, so that any of them can write the checkpoint.
            for seen in &all[1..] {
                for ((name, value), (_, first)) in seen.state.iter().zip(&all[0].state) {
                    assert_eq!(distance(value, first)?, 0.0, "{}: {name} differs among ranks", entry.name);
                }
            }
        }
    }
    Ok(())
}

/// A collective that brings a sum of numbers of one type back too small by the number of ranks.
#[derive(Debug)]
struct Divided(Arc<dyn Collective>);

impl Collective for Divided {
    fn rank(&self) -> usize {
        self.0.rank()
    }
    fn size(&self) -> usize {
        self.0.size()
    }
    fn all_reduce_sum(&self, x: &Tensor) -> Result<Tensor> {
        let sum = self.0.all_reduce_sum(x)?;
        if x.dtype() == DType::F32 { sum / self.size() as f64 } else { Ok(sum) }
    }
    fn all_gather(&self, x: &Tensor) -> Result<Tensor> {
        self.0.all_gather(x)
    }
    fn broadcast(&self, x: &Tensor, root: usize) -> Result<Tensor> {
        self.0.broadcast(x, root)
    }
    fn barrier(&self) -> Result<()> {
        self.0.barrier()
    }
}

#[test]
fn a_mean_taken_twice_is_caught() -> Result<()> {
    for entry in REGISTRY {
        let truth = alone(entry, 2, "")?;
        // Where parameters' gradients are averaged.
        let all = threads::run(2, |comm| two_steps(entry, 2 * ROWS, &comm, &Divided(comm.clone()), "")).unwrap();
        assert!(difference(&all[0], &truth)? > 0.1, "{}: a mean of gradients taken twice goes unseen", entry.name);
    }
    // Where gradients come back from other ranks' losses.
    for name in ["simclr", "contrastive_clustering"] {
        let entry = crate::find(name).unwrap();
        let truth = alone(entry, 2, "")?;
        let all = threads::run(2, |comm| {
            let divided: Arc<dyn Collective> = Arc::new(Divided(comm.clone()));
            two_steps(entry, 2 * ROWS, &divided, comm.as_ref(), "")
        });
        assert!(difference(&all.unwrap()[0], &truth)? > 1e-2, "{name}: a mean on the way back goes unseen");
    }
    Ok(())
}
