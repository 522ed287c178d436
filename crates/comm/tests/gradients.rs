//! The differentiable collectives: W ranks with N rows each against one process with all W N rows.
//!
//! Truth: the same objective written without collectives, on the whole batch. The rule of `docs/architecture.md`: the
//! objective is the mean over ranks, parameter gradients are averaged over ranks.

use std::sync::Arc;

use candle_core::{D, Device, Error, Result, Tensor, Var};
use diptych_comm::threads::run;
use diptych_comm::{Collective, Local, all_gather, all_reduce};

const ROWS: usize = 8;

type Op = fn(&Arc<dyn Collective>, &Tensor) -> Result<Tensor>;

fn data() -> Result<Tensor> {
    let values: Vec<f64> = (0..ROWS * 3).map(|i| ((i * i * 7 + 3) % 23) as f64 / 11.0 - 1.0).collect();
    Tensor::from_vec(values, (ROWS, 3), &Device::Cpu)
}

fn weight() -> Result<Var> {
    let values: Vec<f64> = (0..6).map(|i| 0.3 - 0.17 * f64::from(i)).collect();
    Var::from_tensor(&Tensor::from_vec(values, (3, 2), &Device::Cpu)?)
}

/// A contrastive objective over this rank's rows against everyone's, on embeddings scaled over all ranks.
fn objective(comm: &Arc<dyn Collective>, w: &Tensor, reduce: Op, gather: Op) -> Result<Tensor> {
    let rows = ROWS / comm.size();
    let x = data()?.narrow(0, comm.rank() * rows, rows)?;
    let h = x.matmul(w)?.tanh()?;
    let mean_square = (reduce(comm, &h.sqr()?.sum_keepdim(0)?)? / ROWS as f64)?;
    let z = h.broadcast_div(&mean_square.sqrt()?)?;
    let similarity = z.matmul(&gather(comm, &z)?.t()?)?;
    let positive = z.sqr()?.sum(D::Minus1)?;
    (similarity.exp()?.sum(D::Minus1)?.log()? - positive)?.mean_all()
}

/// The mean over ranks of the objective, and of the gradient of the weight.
fn on_ranks(size: usize, reduce: Op, gather: Op) -> (f64, Vec<f64>) {
    let results = run(size, |comm| {
        let w = weight()?;
        let loss = objective(&comm, &w, reduce, gather)?;
        let gradients = loss.backward()?;
        let gradient = gradients.get(&w).ok_or_else(|| Error::Msg("no gradient".into()))?;
        Ok::<_, Error>((loss.to_scalar::<f64>()?, gradient.flatten_all()?.to_vec1::<f64>()?))
    });
    let results = results.unwrap();
    let share = 1.0 / size as f64;
    let loss = results.iter().map(|(loss, _)| loss * share).sum();
    let gradient = (0..6).map(|i| results.iter().map(|(_, gradient)| gradient[i] * share).sum()).collect();
    (loss, gradient)
}

/// The largest difference of value and gradients from the single-process computation, which uses no collective.
fn difference(size: usize, reduce: Op, gather: Op) -> (f64, f64) {
    let plain: Op = |_, x| Ok(x.clone());
    let local: Arc<dyn Collective> = Arc::new(Local);
    let w = weight().unwrap();
    let loss = objective(&local, &w, plain, plain).unwrap();
    let truth = loss.backward().unwrap().get(&w).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (value, gradient) = on_ranks(size, reduce, gather);
    let largest = gradient.iter().zip(&truth).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    ((value - loss.to_scalar::<f64>().unwrap()).abs(), largest)
}

#[test]
fn value_and_gradient_equal_the_single_process() {
    for size in [1, 2, 4] {
        let (value, gradient) = difference(size, all_reduce, all_gather);
        assert!(value < 1e-13 && gradient < 1e-13, "{size} ranks: value off by {value}, gradient by {gradient}");
    }
}

/// The classic mistakes, each of which the comparison above must see: dividing the gradient by the number of ranks, and
/// cutting the graph at the collective.
#[test]
fn planted_errors_are_seen() {
    /// The right value, with the gradient scaled by 1/W: `y / W + detach(y (1 - 1/W))`.
    fn averaged(op: Op, comm: &Arc<dyn Collective>, x: &Tensor) -> Result<Tensor> {
        let y = op(comm, x)?;
        let share = 1.0 / comm.size() as f64;
        (&y * share)? + (y.detach() * (1.0 - share))?
    }
    let averaged_reduce: Op = |comm, x| averaged(all_reduce, comm, x);
    let averaged_gather: Op = |comm, x| averaged(all_gather, comm, x);
    let cut_reduce: Op = |comm, x| comm.all_reduce_sum(x);
    let cut_gather: Op = |comm, x| comm.all_gather(x);
    for size in [2, 4] {
        for (reduce, gather) in [
            (averaged_reduce, all_gather as Op),
            (all_reduce as Op, averaged_gather),
            (cut_reduce, all_gather as Op),
            (all_reduce as Op, cut_gather),
        ] {
            let (value, gradient) = difference(size, reduce, gather);
            assert!(value < 1e-13, "a planted error should leave the value alone");
            assert!(gradient > 1e-3, "{size} ranks: a planted error of the gradient went unseen ({gradient})");
        }
    }
}

/// The incoming gradient of a sum is an expanded scalar: a view with strides of 0.
#[test]
fn broadcast_gradients_go_back_whole() {
    let gradients = run(2, |comm| {
        let x = Var::new(&[[1f32, 2.0]], &Device::Cpu)?;
        let loss = (all_gather(&comm, &x)?.sum_all()? * (comm.rank() + 1) as f64)?;
        let gradients = loss.backward()?;
        gradients.get(&x).ok_or_else(|| Error::Msg("no gradient".into()))?.to_vec2::<f32>()
    });
    assert_eq!(gradients.unwrap(), vec![vec![vec![3.0, 3.0]]; 2]);
}
