//! What a call gives: rows for the JSON file, and lines for the terminal.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::bars::Verdict;
use crate::machine::Machine;
use crate::measure::geometric_mean;

/// One variant of the peer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Variant {
    /// Its name.
    pub(crate) variant: String,
    /// Its time or speed, in the row's unit.
    pub(crate) value: Option<f64>,
    /// Our speed over its.
    pub(crate) ratio: Option<f64>,
    /// How many turns it had.
    pub(crate) rounds: usize,
    /// Its peak memory.
    pub(crate) peak_bytes: Option<u64>,
    /// Why it has no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// How near its pictures are to ours, in dB; 100 where they are equal, or nearly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) decibels: Option<f64>,
}

/// One case.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) case: String,
    /// Our time or speed, in `unit`.
    pub(crate) ours: Option<f64>,
    /// `ms`, `images/s` or `views/s`.
    pub(crate) unit: &'static str,
    /// The peer and its version.
    pub(crate) peer: String,
    /// Its best variant.
    pub(crate) peer_variant: Option<String>,
    /// That one's time or speed.
    pub(crate) peer_value: Option<f64>,
    /// Our speed over that one's: above 1 when ours is better.
    pub(crate) ratio: Option<f64>,
    /// Our peak memory.
    pub(crate) ours_peak_bytes: Option<u64>,
    /// The best variant's, measured the same way.
    pub(crate) peer_peak_bytes: Option<u64>,
    /// The least time that this machine's measured peaks allow, by our time.
    pub(crate) floor_share: Option<f64>,
    /// Bytes that must be moved by our time, a second.
    pub(crate) bytes_per_second: Option<f64>,
    /// Operations in products by our time, a second.
    pub(crate) flops_per_second: Option<f64>,
    /// `f32` or `bf16`: the type of activations.
    pub(crate) dtype: &'static str,
    /// `f32`, `tf32` or `bf16`: how they are multiplied.
    pub(crate) precision: &'static str,
    /// Turns of ours.
    pub(crate) rounds: usize,
    /// What it should reach, and whether it did.
    pub(crate) bars: Vec<Verdict>,
    /// How memory was measured: `live`, `resident` or `anonymous`.
    pub(crate) memory: &'static str,
    /// Our live bytes by the counting allocator, where `memory` is `resident`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ours_live_bytes: Option<u64>,
    /// The whole process's peak, libraries included, where `memory` is `resident`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ours_process_bytes: Option<u64>,
    /// The peer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer_process_bytes: Option<u64>,
    /// Every variant tried.
    pub(crate) variants: Vec<Variant>,
    /// Why it was not timed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    #[serde(skip)]
    pub(crate) groups: Vec<String>,
}

/// The JSON file.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    /// The suite.
    pub(crate) suite: &'a str,
    /// The processor and the threads.
    pub(crate) machine: &'a str,
    /// What ran on it.
    pub(crate) device: &'a str,
    /// Threads of both.
    pub(crate) threads: usize,
    /// The commit of the workspace, where git tells.
    pub(crate) commit: Option<String>,
    /// Measured peaks.
    pub(crate) peaks: &'a Machine,
    /// Geometric means of ratios by group.
    pub(crate) means: BTreeMap<String, f64>,
    /// The bars, each by the row that reaches least.
    pub(crate) bars: Vec<Verdict>,
    /// The cases.
    pub(crate) rows: &'a [Row],
}

/// The geometric mean of each group's ratios.
pub(crate) fn means(rows: &[Row]) -> BTreeMap<String, f64> {
    let mut groups: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for row in rows {
        for group in &row.groups {
            groups.entry(group.clone()).or_default().extend(row.ratio);
        }
    }
    groups.into_iter().filter_map(|(group, ratios)| Some((group, geometric_mean(&ratios)?))).collect()
}

/// The line above the rows; `width` is that of the longest case name.
pub(crate) fn head(width: usize) -> String {
    format!(
        "{:<width$} {:>16} {:>9}  {:<22} {:>6} {:>6} {:>13} {:>19}  others",
        "case", "ours", "peer", "best variant", "ratio", "floor", "rate", "memory ours/peer"
    )
}

/// One row as a line, or as two where there is something to explain.
pub(crate) fn line(row: &Row, width: usize) -> String {
    let Some(ours) = row.ours else {
        return format!("{:<width$} {}", row.case, row.note.as_deref().unwrap_or("not timed"));
    };
    let number = |value: Option<f64>| value.map_or("-".to_string(), digits);
    let ratio = |value: Option<f64>| value.map_or("-".to_string(), |v| format!("{v:.2}"));
    let floor = row.floor_share.map_or("-".to_string(), |v| format!("{:.0} %", v * 100.0));
    let memory = format!("{}/{}", bytes(row.ours_peak_bytes), bytes(row.peer_peak_bytes));
    let others = row.variants.iter().filter(|v| Some(&v.variant) != row.peer_variant.as_ref());
    let others: Vec<String> = others
        .map(|v| match &v.note {
            Some(note) => format!("{}: {note}", v.variant),
            None => format!("{} {}", v.variant, ratio(v.ratio)),
        })
        .collect();
    format!(
        "{:<width$} {:>7} {:<8} {:>9}  {:<22} {:>6} {:>6} {:>13} {:>19}  {}",
        row.case,
        digits(ours),
        row.unit,
        number(row.peer_value),
        row.peer_variant.as_deref().unwrap_or("-"),
        ratio(row.ratio),
        floor,
        rate(row),
        memory,
        others.join(", ")
    )
    .trim_end()
    .to_string()
}

/// What our speed means: arithmetic where there is some, else traffic.
fn rate(row: &Row) -> String {
    let (value, unit) = match (row.flops_per_second, row.bytes_per_second) {
        (Some(flops), _) => (flops, "FLOP/s"),
        (None, Some(bytes)) => (bytes, "B/s"),
        (None, None) => return "-".to_string(),
    };
    if value >= 1e12 { format!("{} T{unit}", digits(value / 1e12)) } else { format!("{} G{unit}", digits(value / 1e9)) }
}

/// Three or four digits.
fn digits(v: f64) -> String {
    let places = if v >= 100.0 {
        0
    } else if v >= 10.0 {
        1
    } else if v >= 1.0 {
        2
    } else {
        3
    };
    format!("{v:.places$}")
}

fn bytes(n: Option<u64>) -> String {
    n.map_or("-".to_string(), |n| format!("{} MB", digits(n as f64 / 1e6)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let variant = |name: &str, value, ratio| Variant {
            variant: name.into(),
            value: Some(value),
            ratio: Some(ratio),
            rounds: 7,
            peak_bytes: Some(2_000_000),
            note: None,
            decibels: None,
        };
        Row {
            case: "conv_a".into(),
            ours: Some(12.345),
            unit: "ms",
            peer: "torch".into(),
            peer_variant: Some("channels_last".into()),
            peer_value: Some(24.69),
            ratio: Some(2.0),
            ours_peak_bytes: Some(1_500_000),
            peer_peak_bytes: Some(2_000_000),
            floor_share: Some(0.505),
            bytes_per_second: Some(4e9),
            rounds: 7,
            variants: vec![variant("channels_last", 24.69, 2.0), variant("contiguous", 37.0, 3.0)],
            groups: vec!["conv f32".into()],
            ..Row::default()
        }
    }

    #[test]
    fn a_row_reads_well() {
        let words: Vec<String> = line(&row(), 8).split_whitespace().map(String::from).collect();
        let expected = "conv_a 12.3 ms 24.7 channels_last 2.00 50 % 4.00 GB/s 1.50 MB/2.00 MB contiguous 3.00";
        assert_eq!(words.join(" "), expected);
        assert_eq!(head(8).find("others"), line(&row(), 8).find("contiguous"));
    }

    #[test]
    fn a_row_that_was_not_timed_says_why() {
        let row = Row { ours: None, note: Some("not supported: bf16".into()), ..row() };
        assert_eq!(line(&row, 8), "conv_a   not supported: bf16");
    }

    #[test]
    fn means_are_by_group_and_pass_over_what_has_no_ratio() {
        let other = Row { ratio: Some(0.5), ..row() };
        let failed = Row { ratio: None, ..row() };
        let alone = Row { groups: vec!["pool".into()], ratio: None, ..row() };
        let means = means(&[row(), other, failed, alone]);
        assert_eq!(means.len(), 1);
        assert!((means["conv f32"] - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_rate_is_arithmetic_where_there_is_some() {
        assert_eq!(rate(&Row { flops_per_second: Some(7.9e14), ..row() }), "790 TFLOP/s");
        assert_eq!(rate(&Row { bytes_per_second: Some(4.3e12), ..row() }), "4.30 TB/s");
        assert_eq!(rate(&Row::default()), "-");
    }

    /// The keys that scripts read.
    #[test]
    fn the_json_has_the_agreed_keys() {
        let value = serde_json::to_value(row()).unwrap();
        for key in [
            "case",
            "ours",
            "unit",
            "peer",
            "peer_variant",
            "peer_value",
            "ratio",
            "ours_peak_bytes",
            "peer_peak_bytes",
            "floor_share",
        ] {
            assert!(!value[key].is_null(), "{key}");
        }
        assert_eq!(value["variants"][1]["variant"], "contiguous");
        assert!(value.get("groups").is_none() && value.get("note").is_none());
    }
}
