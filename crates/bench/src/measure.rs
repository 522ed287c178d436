//! Medians, ratios, and how often to repeat what is short.

use std::time::{Duration, Instant};

use anyhow::Result;
use candle_core::Device;

use crate::case::Runner;

/// What a turn should last at least, so that one disturbance of the machine does not make it.
const TURN: f64 = 0.02;

/// A pause between ours and the peer: the threads of one wait a while for more work before they sleep, and would
/// take the other's time.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// How many runs a turn has, when one takes so many seconds.
pub(crate) fn repeats(seconds: f64) -> usize {
    if seconds.is_nan() || seconds <= 0.0 { 1 } else { (TURN / seconds).ceil().clamp(1.0, 500.0) as usize }
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

/// Seconds of one run.
pub(crate) fn time(runner: &mut dyn Runner, device: &Device) -> Result<f64> {
    runner.reset()?;
    device.synchronize()?;
    let start = Instant::now();
    runner.run()?;
    device.synchronize()?;
    Ok(start.elapsed().as_secs_f64())
}

/// One turn of ours: the median over its runs.
pub(crate) fn turn(runner: &mut dyn Runner, device: &Device, estimate: f64) -> Result<f64> {
    std::thread::sleep(PAUSE);
    if warms_up(estimate) {
        time(runner, device)?;
    }
    let times: Vec<f64> = (0..repeats(estimate)).map(|_| time(runner, device)).collect::<Result<_>>()?;
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
        assert_eq!([repeats(1.0), repeats(0.02), repeats(0.006), repeats(1e-9), repeats(0.0)], [1, 1, 4, 500, 1]);
    }
}
