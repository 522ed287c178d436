//! Monitors on made-up runs.

use candle_core::{Device, Result, Tensor};
use diptych_losses::Loss;
use diptych_methods::Forward;
use diptych_random::Stream;

use super::collapse::{Collapse, Kind, Look, News};
use super::measure::Measures;
use super::{Health, keys};
use crate::log::{Row, metrics};

const HEALTHY: Measures =
    Measures { std: 0.08, rank: 60.0, alignment: 0.4, uniformity: -3.5, positive: 0.8, negative: 0.05 };
/// 1/sqrt(128)
const EVEN: f64 = 0.088_388;

fn look(step: u64, measures: Measures) -> Look {
    Look { step, loss: None, trivial: None, measures, shape: [256, 128] }
}

/// What is told of a run of `total` steps that is looked at every `every` steps, with the step of telling.
fn told(total: u64, every: u64, warmup: u64, at: impl Fn(u64) -> Look) -> Vec<(u64, News)> {
    let mut collapse = Collapse::new(total, warmup);
    let steps = (0..=total).filter(|step| *step == 1 || (*step > 0 && step.is_multiple_of(every)));
    steps.filter_map(|step| Some((step, collapse.look(&at(step))?))).collect()
}

fn spread(share: f64) -> Measures {
    Measures { std: share * EVEN, ..HEALTHY }
}

#[test]
fn a_healthy_run_is_left_in_peace() {
    for (total, every) in [(64, 1), (64, 10), (1000, 10), (100_000, 50)] {
        assert_eq!(told(total, every, 0, |step| look(step, HEALTHY)), []);
        // Few rows or few dimensions have few directions and a rough spread.
        let small = Measures { rank: 2.4, std: 0.7 / 2.0, ..HEALTHY };
        assert_eq!(told(total, every, 0, |step| Look { shape: [8, 4], ..look(step, small) }), []);
    }
}

#[test]
fn a_point_collapse_is_told_once_with_its_beginning() {
    let run = |step| look(step, if step < 300 { HEALTHY } else { spread(1e-4) });
    assert_eq!(told(1000, 10, 0, run), [(320, News::Collapsed { kind: Kind::Point, since: 300 })]);
    assert_eq!(told(1000, 1, 0, run), [(320, News::Collapsed { kind: Kind::Point, since: 300 })]);
    assert_eq!(told(1000, 50, 0, run), [(400, News::Collapsed { kind: Kind::Point, since: 300 })]);
}

/// It began where the embeddings became alike, not where the last of the spread went.
#[test]
fn a_slow_collapse_began_at_its_first_sign() {
    let run = |step| look(step, spread((-(step as f64) / 50.0).exp()));
    assert_eq!(told(1000, 10, 0, run), [(140, News::Collapsed { kind: Kind::Point, since: 70 })]);
}

#[test]
fn a_run_that_never_was_healthy_gets_its_grace() {
    let flat = |step| look(step, spread(1e-6));
    assert_eq!(told(64, 10, 0, flat), [(40, News::Collapsed { kind: Kind::Point, since: 1 })]);
    assert_eq!(told(2000, 10, 0, flat), [(100, News::Collapsed { kind: Kind::Point, since: 1 })]);
    assert_eq!(told(2000, 10, 400, flat)[0].0, 400, "a warm-up holds the embeddings where they are");
}

#[test]
fn slow_starters_are_no_alarm() {
    // From nothing to healthy over half the run.
    let rising = |step: u64| spread((1e-3 * (step as f64 / 70.0).exp()).min(0.9));
    assert_eq!(told(1000, 10, 0, |step| look(step, rising(step))), []);
    let rank = |step: u64| Measures { rank: (1.2 * (step as f64 / 150.0).exp()).min(50.0), ..HEALTHY };
    assert_eq!(told(1000, 10, 0, |step| look(step, rank(step))), []);
    // Alike at the start, and moving apart.
    assert_eq!(told(1000, 10, 0, |step| look(step, spread((0.15 + step as f64 / 800.0).min(1.0)))), []);
}

#[test]
fn embeddings_that_stay_alike_are_told() {
    let run = |step| look(step, spread(if step < 100 { 0.6 } else { 0.2 }));
    assert_eq!(told(1000, 10, 0, run), [(200, News::Collapsed { kind: Kind::Alike, since: 100 })]);
}

/// A contrastive loss far below its trivial value tells images apart on a small part of the sphere as well.
#[test]
fn near_embeddings_that_are_told_apart_are_no_alarm() {
    let near = |loss: f64| move |step| Look { loss: Some(loss), trivial: Some(7.6), ..look(step, spread(0.26)) };
    assert_eq!(told(1000, 10, 0, near(5.3)), []);
    assert_eq!(told(1000, 10, 0, near(7.3))[0].1, News::Collapsed { kind: Kind::Alike, since: 1 });
}

/// A fresh network that is narrow to begin with gets its grace even if it was no collapse yet.
#[test]
fn a_narrow_start_gets_its_grace() {
    let run = |step: u64| {
        look(
            step,
            spread(if step < 5 {
                0.4
            } else if step < 45 {
                0.02
            } else {
                0.8
            }),
        )
    };
    assert_eq!(told(1000, 5, 0, run), []);
}

#[test]
fn a_dip_is_no_collapse() {
    let run = |step| look(step, spread(if step % 100 < 20 { 0.01 } else { 0.8 }));
    assert_eq!(told(2000, 10, 0, run), []);
}

#[test]
fn few_directions_are_told() {
    let run = |step| look(step, Measures { rank: if step < 500 { 40.0 } else { 1.3 }, ..HEALTHY });
    assert_eq!(told(1000, 10, 0, run), [(520, News::Collapsed { kind: Kind::FewDirections, since: 500 })]);
}

/// Six of 128 directions are few once the images have come near each other, and may be enough while they are far apart.
#[test]
fn a_narrow_cone_of_few_directions_is_told() {
    let narrow =
        |share| move |step| look(step, if step < 500 { HEALTHY } else { Measures { rank: 6.0, ..spread(share) } });
    assert_eq!(told(1000, 10, 0, narrow(0.65)), [(520, News::Collapsed { kind: Kind::FewDirections, since: 500 })]);
    assert_eq!(told(1000, 10, 0, narrow(0.9)), []);
}

#[test]
fn a_recovery_is_told_too() {
    let run = |step| look(step, spread(if (300..600).contains(&step) { 0.01 } else { 0.8 }));
    let expected = [(320, News::Collapsed { kind: Kind::Point, since: 300 }), (620, News::Recovered { since: 300 })];
    assert_eq!(told(1000, 10, 0, run), expected);
}

/// ln(4097) = 8.32: the plateau of a queue that is not normalized.
#[test]
fn a_loss_at_its_trivial_value_is_told_after_long() {
    let trivial = 4097f64.ln();
    let with = |step: u64, loss: f64| Look { loss: Some(loss), trivial: Some(trivial), ..look(step, HEALTHY) };
    let noise = |step: u64| 0.05 * (step as f64).sin();
    let stuck = |step| with(step, trivial - 0.02 + noise(step));
    assert_eq!(told(1000, 10, 0, stuck), [(210, News::Collapsed { kind: Kind::Trivial, since: 1 })]);
    assert_eq!(told(100_000, 100, 0, stuck)[0].0, 5100);
    assert_eq!(told(1000, 10, 300, stuck)[0].0, 500);
    // It starts there in every run; one that leaves it slowly is on its way.
    let slow = |step| with(step, trivial * (1.0 - 0.06 * step as f64 / 1000.0) + noise(step));
    assert_eq!(told(1000, 10, 0, slow), []);
    let usual = |step: u64| with(step, 6.0 + (trivial - 6.0) * (-(step as f64) / 60.0).exp() + noise(step));
    assert_eq!(told(1000, 10, 0, usual), []);
    // Negatives of a young queue are nearer than they will be: a loss that starts low and comes back up has lost its way.
    let back = |step| with(step, if step < 200 { 7.0 } else { trivial + noise(step) });
    assert!(matches!(told(1000, 10, 0, back)[..], [(_, News::Collapsed { kind: Kind::Trivial, since: 200..=300 })]));
}

fn forward(rows: usize, dims: usize, alike: f64, seed: u64) -> Result<Forward> {
    let view = |view| {
        let mut stream = Stream::keyed(seed, &[view]);
        let common: Vec<f64> = (0..dims).map(|_| stream.normal()).collect();
        let values: Vec<f32> =
            (0..rows * dims).map(|i| (alike * common[i % dims] + (1.0 - alike) * stream.normal()) as f32).collect();
        Tensor::from_vec(values, (rows, dims), &Device::Cpu)
    };
    let embeddings = vec![view(1)?, view(1)?];
    let total = Tensor::new(1f32, &Device::Cpu)?;
    let monitors = vec![("queue_age", Tensor::new(3f64, &Device::Cpu)?)];
    Ok(Forward { loss: Loss { total, parts: Vec::new() }, embeddings, trivial_loss: Some(5.0), monitors })
}

/// Rows carry all there is to judge by: a health made from them is the one that wrote them.
#[test]
fn a_resumed_run_judges_as_one_that_never_stopped() -> anyhow::Result<()> {
    let mut health = Health::new(100, 0, &[]);
    let mut rows: Vec<Row> = Vec::new();
    let mut news = Vec::new();
    for step in (5..=100).step_by(5) {
        let mut row = metrics::row(step, 0);
        row.insert("loss".into(), 4.0.into());
        let collapsed = if step > 50 { 1.0 } else { 0.0 };
        news.extend(health.look(&mut row, 4.0, &forward(32, 16, collapsed, step)?)?);
        rows.push(row);
        let again = Health::new(100, 0, &rows);
        assert_eq!((again.collapsed_since(), again.told()), (health.collapsed_since(), health.told()));
        assert_eq!((again.shape(), again.spread()), (Some([32, 16]), health.spread()));
    }
    assert_eq!(news.len(), 1, "{news:?}");
    assert!(news[0].starts_with("warning: collapsed since step 55: all images get the same embedding"), "{news:?}");
    let reason = health.reason().unwrap_or_default();
    assert!(
        news[0].contains(&reason) && news[0].contains(". Usual causes: ") && !reason.contains("causes"),
        "{reason}"
    );
    let keys = |row: &Row| row.keys().cloned().collect::<std::collections::BTreeSet<_>>();
    for key in [keys::STD, keys::RANK, keys::ALIGNMENT, keys::UNIFORMITY, keys::POSITIVE, keys::NEGATIVE] {
        assert!(rows.iter().all(|row| keys(row).contains(key)), "{key}");
    }
    assert!(rows.iter().all(|row| row["queue_age"] == 3.0 && row[keys::TRIVIAL] == 5.0));
    assert_eq!(rows.iter().filter(|row| row.contains_key(keys::SHAPE)).count(), 1);
    assert!(!rows[12].contains_key(keys::COLLAPSED) && rows[19][keys::COLLAPSED] == 55);
    Ok(())
}

#[test]
fn odd_embeddings_are_measured_as_far_as_they_go() -> anyhow::Result<()> {
    assert!(Measures::of(&[])?.is_none());
    let one = Tensor::new(&[[1f32, 2.0]], &Device::Cpu)?;
    let (shape, measures) = Measures::of(std::slice::from_ref(&one))?.unwrap_or(([0, 0], HEALTHY));
    assert!(shape == [1, 2] && measures.rank.is_nan());
    let two = Tensor::new(&[[1f32, 2.0], [f32::NAN, 1.0]], &Device::Cpu)?;
    let (_, measures) = Measures::of(&[Tensor::cat(&[&one, &one], 0)?, two])?.unwrap_or(([0, 0], HEALTHY));
    assert!(measures.std == 0.0 && measures.negative.is_nan());
    let (_, measures) = Measures::of(&forward(300, 8, 0.0, 1)?.embeddings[..1])?.unwrap_or(([0, 0], HEALTHY));
    assert!(measures.positive.is_nan() && measures.rank > 6.0 && measures.negative.abs() < 0.1);
    Ok(())
}
