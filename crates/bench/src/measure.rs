//! Medians, ratios, and how often to repeat what is short.

use std::time::{Duration, Instant};

use anyhow::Result;
use candle_core::Device;

use crate::case::Runner;

/// What a turn should last at least, so that one disturbance of the machine does not make it.
const TURN: f64 = 0.02;
/// The same on a GPU, where all runs of a turn are timed together: far above what it takes to start and to end.
const GPU_TURN: f64 = 0.1;
/// More runs than this have no turn.
const MOST: f64 = 500.0;

/// A pause between ours and the peer: the threads of one wait a while for more work before they sleep, and would
/// take the other's time.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// How many runs a turn has, when one takes so many seconds.
pub(crate) fn repeats(seconds: f64, together: bool) -> usize {
    let turn = if together { GPU_TURN } else { TURN };
    if seconds.is_nan() || seconds <= 0.0 { 1 } else { (turn / seconds).ceil().clamp(1.0, MOST) as usize }
}

/// Whether a turn begins with a run that is not counted, to bring back what the other's turn drove from the caches.
pub(crate) fn warms_up(seconds: f64) -> bool {
    seconds < 0.2
}

/// The median of some numbers; NaN of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// The median over rounds of `theirs / ours`: above 1 when ours takes less time.
pub(crate) fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    let each: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| theirs / ours).collect();
    median(&each)
}

/// The geometric mean; `None` of nothing.
pub(crate) fn geometric_mean(values: &[f64]) -> Option<f64> {
    let sum: f64 = values.iter().map(|v| v.ln()).sum();
    (!values.is_empty()).then(|| (sum / values.len() as f64).exp())
}

/// Seconds of a run, the mean of `runs` with nothing between them: what a device was asked for before is done when they begin, and all of theirs
/// when they end.
pub(crate) fn time(runner: &mut dyn Runner, device: &Device, runs: usize) -> Result<f64> {
    runner.reset(runs)?;
    device.synchronize()?;
    let start = Instant::now();
    for _ in 0..runs {
        runner.run()?;
    }
    device.synchronize()?;
    Ok(start.elapsed().as_secs_f64() / runs as f64)
}

/// One turn of ours: on the CPU the median over its runs, on a GPU their mean, since to wait after each would be timed too.
pub(crate) fn turn(runner: &mut dyn Runner, device: &Device, estimate: f64) -> Result<f64> {
    std::thread::sleep(PAUSE);
    if warms_up(estimate) {
        time(runner, device, 1)?;
    }
    if device.is_cuda() {
        let runs = repeats(estimate, true).min(runner.at_once());
        return time(runner, device, runs);
    }
    let times: Vec<f64> = (0..repeats(estimate, false)).map(|_| time(runner, device, 1)).collect::<Result<_>>()?;
    Ok(median(&times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    /// Rounds are compared one by one: a machine that slows down for both does not move the ratio.
    #[test]
    fn the_ratio_is_that_of_rounds() {
        assert_eq!(ratio(&[1.0, 10.0, 2.0], &[2.0, 20.0, 4.0]), 2.0);
        assert_eq!(ratio(&[1.0, 1.0, 1.0], &[2.0, 0.5]), 1.25);
    }

    #[test]
    fn a_geometric_mean_by_hand() {
        assert!((geometric_mean(&[0.5, 2.0, 8.0]).unwrap() - 2.0).abs() < 1e-12);
        assert_eq!(geometric_mean(&[]), None);
    }

    #[test]
    fn short_runs_are_repeated() {
        assert_eq!([1.0, 0.02, 0.006, 1e-9, 0.0].map(|seconds| repeats(seconds, false)), [1, 1, 4, 500, 1]);
        assert_eq!(repeats(0.006, true), 17);
    }
}
