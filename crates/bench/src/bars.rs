//! What a case should reach, and whether it did.

use serde::Serialize;

use crate::case::OWN;
use crate::report::Row;

/// What is held against a bar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Measure {
    /// Our speed over that of the peer's best variant.
    Best,
    /// Our speed over that of the best of the peer's variants whose names begin so.
    Variant(&'static str),
    /// Our speed over that of the best of the peer's variants whose names do not begin so.
    Except(&'static str),
    /// The share of the bandwidth of a plain copy, measured in the same call, at which we move what must be moved.
    Bandwidth,
    /// Our speed, in the case's unit.
    Speed,
    /// How often the bytes of our peak memory go into so many bytes.
    Memory(f64),
}

/// The least that one case, or all cases with this bar, should reach.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bar {
    /// What it is about; cases with the same words share a bar, and the least of them counts.
    pub(crate) what: String,
    pub(crate) measure: Measure,
    pub(crate) at_least: f64,
}

/// A bar beside what was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    /// What it is about.
    pub(crate) what: String,
    /// The least that is asked for.
    pub(crate) bar: f64,
    /// What was reached; nothing where it was not measured.
    pub(crate) value: Option<f64>,
    /// Whether it is enough; nothing where it was not measured.
    pub(crate) met: Option<bool>,
}

impl Bar {
    pub(crate) fn new(what: impl Into<String>, measure: Measure, at_least: f64) -> Self {
        Self { what: what.into(), measure, at_least }
    }

    /// Whether it is about this variant, which then has all its turns.
    pub(crate) fn names(&self, variant: &str) -> bool {
        matches!(self.measure, Measure::Variant(prefix) if variant.starts_with(prefix))
    }

    /// What a row says about it.
    pub(crate) fn judge(&self, row: &Row) -> Verdict {
        let value = match self.measure {
            Measure::Best => row.ratio,
            Measure::Variant(prefix) => {
                let ratios = row.variants.iter().filter(|v| v.variant.starts_with(prefix)).filter_map(|v| v.ratio);
                ratios.reduce(f64::min)
            }
            Measure::Except(prefix) => {
                let others =
                    row.variants.iter().filter(|v| !v.variant.starts_with(prefix) && !v.variant.starts_with(OWN));
                others.filter_map(|v| v.ratio).reduce(f64::min)
            }
            Measure::Bandwidth => row.floor_share,
            Measure::Speed => row.ours,
            Measure::Memory(bytes) => row.ours_peak_bytes.filter(|peak| *peak > 0).map(|peak| bytes / peak as f64),
        };
        Verdict { what: self.what.clone(), bar: self.at_least, value, met: value.map(|value| value >= self.at_least) }
    }
}

/// One verdict for each bar of some rows, in their order: that of the row which reaches least, and none where one was not measured.
pub(crate) fn summary(rows: &[Row]) -> Vec<Verdict> {
    let mut found: Vec<Verdict> = Vec::new();
    for verdict in rows.iter().flat_map(|row| &row.bars) {
        match found.iter_mut().find(|v| v.what == verdict.what) {
            None => found.push(verdict.clone()),
            Some(v) => {
                let value = v.value.zip(verdict.value).map(|(a, b)| a.min(b));
                *v = Verdict { value, met: value.map(|value| value >= v.bar), ..v.clone() };
            }
        }
    }
    found
}

/// A line for people.
pub(crate) fn line(verdict: &Verdict, width: usize) -> String {
    let number = |v: f64| if v >= 100.0 { format!("{v:.0}") } else { format!("{v:.2}") };
    let value = verdict.value.map_or("-".to_string(), number);
    let word = match verdict.met {
        Some(true) => "met",
        Some(false) => "missed",
        None => "not measured",
    };
    format!("{:<width$} {value:>8}  at least {:>6}  {word}", verdict.what, number(verdict.bar))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Variant;

    fn row() -> Row {
        let variant = |name: &str, ratio| Variant {
            variant: name.into(),
            value: ratio,
            ratio,
            rounds: 7,
            peak_bytes: None,
            note: None,
            decibels: None,
        };
        let variants = vec![
            variant("eager", Some(1.5)),
            variant("compile", Some(1.2)),
            variant("compile_max", Some(1.1)),
            variant("other", None),
            variant("ours_before", Some(0.9)),
        ];
        Row {
            ours: Some(9000.0),
            ratio: Some(1.1),
            floor_share: Some(0.75),
            ours_peak_bytes: Some(500),
            variants,
            ..Row::default()
        }
    }

    #[test]
    fn a_bar_is_held_against_what_it_names() {
        let judge = |measure, at_least| {
            let verdict = Bar::new("a", measure, at_least).judge(&row());
            (verdict.value, verdict.met)
        };
        assert_eq!(judge(Measure::Best, 1.2), (Some(1.1), Some(false)));
        assert_eq!(judge(Measure::Variant("eager"), 1.2), (Some(1.5), Some(true)));
        // The best of the compiled ones is the one that leaves us the least.
        assert_eq!(judge(Measure::Variant("compile"), 1.1), (Some(1.1), Some(true)));
        assert_eq!(judge(Measure::Variant("other"), 1.0), (None, None));
        // Neither those that are named nor ours.
        assert_eq!(judge(Measure::Except("compile"), 1.5), (Some(1.5), Some(true)));
        assert_eq!(judge(Measure::Bandwidth, 0.8), (Some(0.75), Some(false)));
        assert_eq!(judge(Measure::Speed, 10_000.0), (Some(9000.0), Some(false)));
        assert_eq!(judge(Measure::Memory(1000.0), 1.0), (Some(2.0), Some(true)));
    }

    #[test]
    fn a_bar_names_the_variants_that_it_is_about() {
        let names = |measure, variant| Bar::new("a", measure, 1.0).names(variant);
        assert!(names(Measure::Variant("compile"), "compile_max") && !names(Measure::Variant("compile"), "eager"));
        assert!(!names(Measure::Best, "eager") && !names(Measure::Except("eager"), "eager"));
    }

    #[test]
    fn the_least_of_the_rows_counts() {
        let judged = |ratio| {
            let row = Row { ratio, ..row() };
            Row { bars: vec![Bar::new("a", Measure::Best, 1.2).judge(&row)], ..row }
        };
        let both = summary(&[judged(Some(2.0)), judged(Some(1.3))]);
        assert_eq!((both.len(), both[0].value, both[0].met), (1, Some(1.3), Some(true)));
        assert_eq!(line(&both[0], 3), "a       1.30  at least   1.20  met");
        let missing = summary(&[judged(Some(2.0)), judged(None)]);
        assert_eq!((missing[0].value, missing[0].met), (None, None));
        assert!(line(&missing[0], 3).ends_with("-  at least   1.20  not measured"));
    }
}
