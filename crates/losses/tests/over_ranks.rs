//! Losses over ranks: a batch that is spread over 2 or 4 ranks has the loss and the gradients that it has on one.

use std::sync::Arc;

use candle_core::{Result, Tensor, Var};
use diptych_comm::{Collective, Local, all_gather, threads};
use diptych_kernels::check::Array;
use diptych_losses::{
    Balance, BarlowTwins, ClusterContrast, InfoNce, NormalizedMse, NtXent, PrototypeCrossEntropy, SwappedPrediction,
    sinkhorn,
};

type Comm = Arc<dyn Collective>;

/// A loss of a rank's two views.
type Function<'a> = &'a (dyn Fn(&Tensor, &Tensor, &Comm) -> Result<Tensor> + Sync);

/// The total and the gradients of both views, with which a rank ends.
struct Outcome {
    total: f64,
    gradients: [Array; 2],
}

/// What a rank computes from its rows of the views: each has its own, and walks back.
fn rank(views: &[Array; 2], comm: &Comm, loss: Function) -> Result<Outcome> {
    let rows = views[0].shape[0] / comm.size();
    let own = |view: &Array| Var::from_tensor(&view.tensor()?.narrow(0, comm.rank() * rows, rows)?.contiguous()?);
    let vars = [own(&views[0])?, own(&views[1])?];
    let total = loss(&vars[0], &vars[1], comm)?;
    let grads = total.backward()?;
    // What is not tracked in this loss (codes) has no gradient anywhere.
    let gradient = |var: &Var| Array::of(&grads.get(var).cloned().map_or_else(|| var.zeros_like(), Ok)?);
    Ok(Outcome { total: f64::from(total.to_scalar::<f32>()?), gradients: [gradient(&vars[0])?, gradient(&vars[1])?] })
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

/// How far `ranks` ranks with `rows` rows each are from one rank with all rows, as a share: of the loss, and of the gradients'
/// norms. The objective is the mean over ranks, so the gradients that `backward` leaves are divided by the ranks once.
fn distance(ranks: usize, rows: usize, width: usize, loss: Function) -> f64 {
    let total = ranks * rows;
    // Views of one image are near each other.
    let first = Array::random(&[total, width], 1);
    let noise = Array::random(&[total, width], 2);
    let second = first.data.iter().zip(&noise.data).map(|(a, b)| f64::from((a + 0.7 * b) as f32)).collect();
    let views = [first, Array::new(&[total, width], second)];
    let local: Comm = Arc::new(Local);
    let one = rank(&views, &local, loss).unwrap();
    let many = threads::run(ranks, |comm| rank(&views, &comm, loss)).unwrap();
    let mean = many.iter().map(|rank| rank.total).sum::<f64>() / ranks as f64;
    let gradients = [0, 1].map(|view| {
        let all = many.iter().flat_map(|rank| rank.gradients[view].data.iter().map(|v| v / ranks as f64));
        let expected = &one.gradients[view].data;
        let size = norm(expected.iter().copied());
        norm(all.zip(expected).map(|(a, b)| a - b)) / if size > 0.0 { size } else { 1.0 }
    });
    gradients.into_iter().fold((mean - one.total).abs() / one.total.abs(), f64::max)
}

/// On 2 and 4 ranks, with odd and even numbers of rows.
fn check(loss: Function) {
    for (ranks, rows, width) in [(2, 3, 5), (2, 7, 4), (4, 5, 6), (4, 1, 9), (2, 33, 17)] {
        let distance = distance(ranks, rows, width, loss);
        assert!(distance <= 1e-5, "{ranks} ranks with [{rows}, {width}] each are off by {distance}");
    }
}

#[test]
fn nt_xent() {
    check(&|a, b, comm| Ok(NtXent::new(0.2).loss_over(a, b, comm)?.total));
    check(&|a, b, comm| Ok(NtXent { temperature: 0.5, normalize: false }.loss_over(a, b, comm)?.total));
}

#[test]
fn info_nce_among() {
    check(&|a, b, comm| Ok(InfoNce { temperature: 0.2 }.among_over(a, b, comm)?.total));
    // Keys of a momentum encoder: no gradient.
    check(&|a, b, comm| Ok(InfoNce { temperature: 0.2 }.among_over(a, &b.detach(), comm)?.total));
}

#[test]
fn barlow_twins() {
    check(&|a, b, comm| Ok(BarlowTwins { balance: Balance::Lambda(0.1) }.loss_over(a, b, comm)?.total));
    check(&|a, b, comm| Ok(BarlowTwins { balance: Balance::RowMean }.loss_over(a, b, comm)?.total));
}

#[test]
fn cluster_contrast() {
    let softmax = |x: &Tensor| candle_nn::ops::softmax(&x.affine(3.0, 0.0)?, 1);
    check(&|a, b, comm| Ok(ClusterContrast { temperature: 1.0 }.loss_over(&softmax(a)?, &softmax(b)?, comm)?.total));
}

/// Codes are of the whole batch, so that a code depends on every rank's scores.
#[test]
fn swapped_prediction_with_codes_of_all_ranks() {
    check(&|a, b, comm| {
        let codes = sinkhorn(b, 0.05, 3, comm.as_ref())?;
        Ok(SwappedPrediction { temperature: 0.1 }.loss(a, &codes)?.total)
    });
}

/// Every third row has no assignment, so that ranks have different numbers of them, and some none.
#[test]
fn prototype_cross_entropy_with_uneven_ranks() {
    check(&|a, _, comm| {
        let (rows, width) = a.dims2()?;
        let first = comm.rank() * rows;
        let label = |row: usize| (row % 3 != 1).then_some((row * 5 % width) as u32);
        let labels: Vec<_> = (first..first + rows).map(label).collect();
        Ok(PrototypeCrossEntropy { temperature: 0.1 }.loss_over(a, &labels, comm.as_ref())?.total)
    });
}

/// A mean over rows needs nothing: the mean of the ranks' means is it.
#[test]
fn means_over_rows() {
    check(&|a, b, _| Ok(NormalizedMse.loss(a, b)?.total));
}

/// The same comparison finds the errors that are usual here: a 1/W too many, a 1/W on the gathered keys' way back, keys that
/// are gathered without gradients, and negatives of the own rank only.
#[test]
fn planted_errors_are_caught() {
    const LOSS: InfoNce = InfoNce { temperature: 0.2 };
    let wrong: [(&str, Function); 4] = [
        ("1/W on the total", &|a, b, comm| LOSS.among_over(a, b, comm)?.total.affine(1.0 / comm.size() as f64, 0.0)),
        ("1/W on the way back", &|a, b, comm| {
            let share = 1.0 / comm.size() as f64;
            let b = (b.affine(share, 0.0)? + b.detach().affine(1.0 - share, 0.0)?)?;
            Ok(LOSS.among_over(a, &b, comm)?.total)
        }),
        ("keys without gradients", &|a, b, comm| {
            Ok(LOSS.loss_among(a, &comm.all_gather(b)?, comm.rank() * b.dim(0)?)?.total)
        }),
        ("negatives of the own rank", &|a, b, comm| {
            all_gather(comm, b)?;
            Ok(LOSS.loss_among(a, b, 0)?.total)
        }),
    ];
    for (name, loss) in wrong {
        // On one rank the second and the third change nothing or drop gradients there too, so the right loss is the measure.
        let right: Function = &|a, b, comm| match comm.size() {
            1 => Ok(LOSS.loss_among(a, b, 0)?.total),
            _ => loss(a, b, comm),
        };
        for ranks in [2, 4] {
            let distance = distance(ranks, 5, 6, right);
            assert!(distance > 1e-2, "{name}: {distance}");
        }
    }
}
