//! Axes: ranges that fit the data and ticks at round numbers.

use super::html::{minus, thousands, trim_mantissa};

/// How an axis writes its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// As they are.
    Plain,
    /// Fractions as percentages.
    Percent,
}

/// A linear axis over `[low, high]`, `low < high`.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Axis {
    /// The axis of the steps from the first to the last. One step alone stands in the middle.
    pub(super) fn of_steps(first: u64, last: u64) -> Self {
        let (first, last) = (first as f64, last as f64);
        if last > first { Axis { low: first, high: last } } else { Axis { low: first - 1.0, high: first + 1.0 } }
    }

    /// The axis of these values (those not finite are ignored), with a little air, from 0 if `from_zero`.
    ///
    /// A few far outliers don't squeeze the rest into a flat line: they fall out of the axis, and drawing clamps them.
    pub(super) fn of_values(values: impl Iterator<Item = f64>, from_zero: bool) -> Self {
        let mut sorted: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let (Some(mut low), Some(mut high)) = (sorted.first().copied(), sorted.last().copied()) else {
            return Axis { low: 0.0, high: 1.0 };
        };
        if sorted.len() >= 50 {
            let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
            let (bottom, top) = (at(0.02), at(0.98));
            let reach = 1.5 * (top - bottom);
            (low, high) = (low.max(bottom - reach), high.min(top + reach));
        }
        let from_zero = from_zero && low >= 0.0;
        if from_zero {
            low = 0.0;
        }
        if high <= low {
            // Flat: a window around it. The size of the value bounds what can be told apart in f64.
            let half = if high == 0.0 { 1.0 } else { (high.abs() * 0.1).max(1e-12) };
            (low, high) = (low - half, high + half);
            low = if from_zero { 0.0 } else { low };
        }
        let air = 0.06 * (high - low);
        let low = if from_zero { 0.0 } else { low - air };
        Axis { low, high: high + air }
    }

    /// Where a value lies, from 0 (low) to 1 (high); values outside the axis are clamped to its ends.
    pub(super) fn place(&self, value: f64) -> f64 {
        // Halves first, so that a range over the whole of f64 doesn't overflow.
        ((value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0)).clamp(0.0, 1.0)
    }

    /// Round numbers on the axis, about `count`, with their labels.
    pub(super) fn ticks(&self, count: usize, format: Format) -> Vec<(f64, String)> {
        let unit = if format == Format::Percent { 100.0 } else { 1.0 };
        let (low, high) = (self.low * unit, self.high * unit);
        let step = nice((high - low) / count.max(1) as f64);
        if !(step.is_finite() && step > 0.0 && (low / step).is_finite()) {
            return Vec::new();
        }
        let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
        // Beyond 2^52 neighbors can't be told apart.
        if last - first > 50.0 || first.abs() > 4e15 || last.abs() > 4e15 {
            return Vec::new();
        }
        let largest = low.abs().max(high.abs());
        (0..=(last - first) as i64)
            .map(|i| {
                let number = (first + i as f64) * step;
                (number / unit, label(number, step, largest) + if format == Format::Percent { " %" } else { "" })
            })
            .collect()
    }

    /// Ticks at whole numbers, for steps.
    pub(super) fn step_ticks(&self, count: usize) -> Vec<(f64, String)> {
        let ticks = self.ticks(count, Format::Plain).into_iter();
        let whole = ticks.filter(|(value, _)| value.fract() == 0.0 && *value >= 0.0);
        whole.map(|(value, _)| (value, thousands(value as u64))).collect()
    }
}

/// The smallest of 1, 2, 5 times a power of ten that is not below `step`.
fn nice(step: f64) -> f64 {
    let power = 10f64.powi(step.log10().floor() as i32);
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= step * 0.999_999).unwrap_or(10.0);
    factor * power
}

fn label(number: f64, step: f64, largest: f64) -> String {
    if number.abs() < step * 1e-6 {
        return "0".into();
    }
    if !(1e-3..1e6).contains(&largest) {
        let digits = (number.abs().log10().floor() - step.log10().floor()).clamp(0.0, 6.0) as usize;
        return trim_mantissa(&format!("{number:.digits$e}"));
    }
    let digits = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    if digits == 0 {
        let sign = if number < 0.0 { "−" } else { "" };
        return sign.to_owned() + &thousands(number.abs().round() as u64);
    }
    minus(format!("{number:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, format: Format) -> Vec<String> {
        Axis { low, high }.ticks(5, format).into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(labels(0.0, 1.06, Format::Plain), ["0.0", "0.5", "1.0"].map(|l| if l == "0.0" { "0" } else { l }));
        assert_eq!(labels(0.0, 0.83, Format::Percent), ["0 %", "20 %", "40 %", "60 %", "80 %"]);
        assert_eq!(labels(-3.2, -1.1, Format::Plain), ["−3.0", "−2.5", "−2.0", "−1.5"]);
        assert_eq!(labels(0.0, 4.2e-4, Format::Plain), ["0", "1e-4", "2e-4", "3e-4", "4e-4"]);
        assert_eq!(labels(0.0, 12_000.0, Format::Plain), ["0", "5,000", "10,000"]);
        assert_eq!(labels(0.998, 1.003, Format::Plain), ["0.998", "0.999", "1.000", "1.001", "1.002", "1.003"]);
    }

    #[test]
    fn axes_of_odd_data_are_never_empty() {
        let huge = f64::MAX / 2.0;
        let cases: [&[f64]; 7] =
            [&[], &[f64::NAN], &[0.0], &[5.0, 5.0], &[-1e300, 1e300], &[1e-300, 2e-300], &[-huge, f64::INFINITY]];
        for values in cases {
            for from_zero in [false, true] {
                let axis = Axis::of_values(values.iter().copied(), from_zero);
                assert!(axis.low < axis.high && axis.low.is_finite() && axis.high.is_finite(), "{values:?} {axis:?}");
                for value in values.iter().filter(|value| value.is_finite()) {
                    assert!((0.0..=1.0).contains(&axis.place(*value)), "{values:?} {axis:?}");
                }
                assert!(axis.ticks(5, Format::Plain).len() <= 20, "{values:?}");
            }
        }
        assert_eq!(Axis::of_steps(7, 7).place(7.0), 0.5);
    }

    #[test]
    fn an_outlier_does_not_flatten_the_rest() {
        let values = (0..1000).map(|i| if i == 3 { 1e9 } else { 1.0 + (i % 10) as f64 });
        let axis = Axis::of_values(values, false);
        assert!(axis.high < 40.0, "{axis:?}");
        assert_eq!(axis.place(1e9), 1.0);
    }

    #[test]
    fn steps_have_whole_ticks() {
        let labels: Vec<String> = Axis::of_steps(1, 3).step_ticks(5).into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["1", "2", "3"]);
    }
}
