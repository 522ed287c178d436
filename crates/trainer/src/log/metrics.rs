//! `metrics.jsonl`: one JSON object a line, `step` and `epoch` first, then the other keys by name.
//!
//! The file is the run's primary record: it is appended to and flushed a row at a time, a resumed run cuts it back to
//! its checkpoint's step, and the report's curves are read from it.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::replace_file;
use crate::monitor::keys;
use crate::report::{Series, SeriesKind};

/// One row of metrics: names and values.
pub type Row = serde_json::Map<String, Value>;

/// A row that holds `step` and `epoch`.
pub fn row(step: u64, epoch: impl Into<Value>) -> Row {
    let mut row = Row::new();
    row.insert("step".into(), step.into());
    row.insert("epoch".into(), epoch.into());
    row
}

/// Appends rows to a metrics file.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens `path` for appending and creates it if there is none.
    ///
    /// A half-written last line (of a killed run) is removed first, so that the next row starts on a line of its own.
    ///
    /// # Errors
    /// If the file can't be opened or written.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = read_bytes(path)?;
        let whole = whole_len(&bytes);
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("metrics file {}: can't be opened for writing", path.display()))?;
        if whole < bytes.len() {
            file.set_len(whole as u64).with_context(|| format!("metrics file {}: can't be cut", path.display()))?;
        }
        if whole > 0 && bytes[whole - 1] != b'\n' {
            file.write_all(b"\n").with_context(|| format!("metrics file {}: can't be written", path.display()))?;
        }
        Ok(MetricsLog { path: path.to_owned(), file })
    }

    /// Writes one row and hands it to the operating system at once.
    ///
    /// The keys come in a fixed order: `step`, `epoch`, then by name. A number that is not finite is written as `null`
    /// (JSON has no other word for it; `serde_json` makes it one when the row is built).
    ///
    /// # Errors
    /// If the row has no integer `step`, or on a failed write (a full disk, for instance), with the path.
    pub fn write(&mut self, row: &Row) -> Result<()> {
        if row.get("step").and_then(Value::as_u64).is_none() {
            bail!("metrics file {}: a row without an integer step: {}", self.path.display(), line(row));
        }
        // One write per row: a kill leaves at most one line unfinished.
        self.file
            .write_all((line(row) + "\n").as_bytes())
            .with_context(|| format!("metrics file {}: can't be written", self.path.display()))
    }
}

/// Drops all rows with a step above `step`, and a half-written last line; returns how many rows were dropped.
///
/// The file is rewritten beside itself and renamed, so a kill leaves the old or the new one. No file is fine: 0.
///
/// # Errors
/// If the file can't be read or rewritten, or a line other than the last is not a JSON object with a `step`.
pub fn cut_back_to(path: &Path, step: u64) -> Result<usize> {
    let bytes = read_bytes(path)?;
    let rows = parse(&bytes, path)?;
    let mut kept = Vec::with_capacity(bytes.len());
    let mut dropped = 0;
    for (number, (text, row)) in rows.iter().enumerate() {
        match row.get("step").and_then(Value::as_u64) {
            Some(at) if at <= step => {
                kept.extend_from_slice(text);
                kept.push(b'\n');
            }
            Some(_) => dropped += 1,
            None => bail!("metrics file {}: row {} has no integer step", path.display(), number + 1),
        }
    }
    if kept != bytes {
        replace_file(path, &kept).with_context(|| format!("metrics file {}: can't be rewritten", path.display()))?;
    }
    Ok(dropped)
}

/// All whole rows of a metrics file in file order; a half-written last line is left out. No file gives no rows.
///
/// # Errors
/// If the file can't be read, or a line other than the last is not a JSON object.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let bytes = read_bytes(path)?;
    Ok(parse(&bytes, path)?.into_iter().map(|(_, row)| row).collect())
}

/// What rows hold beside curves, or what a curve need not show twice.
const NO_CURVES: [&str; 7] =
    ["step", "epoch", "views_per_second", "raw_knn_top1", "random_knn_top1", keys::TRIVIAL, keys::COLLAPSED];

/// The report's curves from metrics rows.
///
/// Known keys have their charts, any `loss_*` is a part of the loss, and every other number is one that the method
/// watches. `null` becomes NaN. A row without one of them simply adds no point to its curve.
pub fn series(rows: &[Row]) -> Vec<Series> {
    let known = [
        ("loss", SeriesKind::Loss, "loss", ""),
        ("lr", SeriesKind::LearningRate, "learning rate", ""),
        ("knn_top1", SeriesKind::Accuracy, "kNN top-1", ""),
        ("linear_top1", SeriesKind::Accuracy, "linear top-1", ""),
        (keys::STD, SeriesKind::EmbeddingStd, "embedding std", ""),
        (keys::RANK, SeriesKind::EmbeddingRank, "effective rank", ""),
        (keys::POSITIVE, SeriesKind::Cosine, "two views of an image", ""),
        (keys::NEGATIVE, SeriesKind::Cosine, "different images", ""),
        (keys::UNIFORMITY, SeriesKind::EmbeddingUniformity, "uniformity", ""),
        (keys::ALIGNMENT, SeriesKind::EmbeddingAlignment, "alignment", ""),
        ("alignment", SeriesKind::Geometry, "alignment of features", ""),
        ("uniformity", SeriesKind::Geometry, "uniformity of features", ""),
        ("effective_rank", SeriesKind::Geometry, "effective rank of features", ""),
        ("images_per_second", SeriesKind::Speed, "images per second", "images/s"),
        ("data_wait_share", SeriesKind::DataWait, "data wait", ""),
    ];
    let numbers = rows.iter().flatten().filter(|(_, value)| value.is_number());
    let mut others: Vec<&str> = numbers.map(|(key, _)| key.as_str()).filter(|key| !NO_CURVES.contains(key)).collect();
    others.sort_unstable();
    others.dedup();
    others.retain(|other| known.iter().all(|(key, ..)| key != other));
    let others = others.into_iter().map(|key| match key.strip_prefix("loss_").filter(|part| !part.is_empty()) {
        Some(part) => (key, SeriesKind::LossPart, part.replace('_', " "), ""),
        None => (key, SeriesKind::Monitor, key.replace('_', " "), ""),
    });
    known
        .into_iter()
        .map(|(key, kind, name, unit)| (key, kind, name.to_owned(), unit))
        .chain(others)
        .map(|(key, kind, name, unit)| Series { kind, name, unit: unit.to_owned(), points: points(rows, key) })
        .filter(|series| !series.points.is_empty())
        .collect()
}

fn points(rows: &[Row], key: &str) -> Vec<(u64, f64)> {
    let point = |row: &Row| {
        let value = match row.get(key)? {
            Value::Null => f64::NAN,
            value => value.as_f64()?,
        };
        Some((row.get("step")?.as_u64()?, value))
    };
    rows.iter().filter_map(point).collect()
}

/// A row as a line, without the line end.
fn line(row: &Row) -> String {
    // Sorted here: serde_json's own order depends on a feature that any crate of a build may turn on.
    let rank = |key: &str| ["step", "epoch"].iter().position(|first| *first == key).unwrap_or(2);
    let mut pairs: Vec<(&String, &Value)> = row.iter().collect();
    pairs.sort_unstable_by_key(|(key, _)| (rank(key), key.as_str()));
    let pairs: Vec<String> =
        pairs.into_iter().map(|(key, value)| format!("{}:{value}", Value::from(key.as_str()))).collect();
    format!("{{{}}}", pairs.join(","))
}

fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("metrics file {}: can't be read", path.display())),
    }
}

/// Bytes up to the end of the last line that is whole.
fn whole_len(bytes: &[u8]) -> usize {
    let end = bytes.len() - usize::from(bytes.last() == Some(&b'\n'));
    let start = bytes[..end].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    if serde_json::from_slice::<Row>(&bytes[start..end]).is_ok() { bytes.len() } else { start }
}

/// The whole lines with their rows.
fn parse<'a>(bytes: &'a [u8], path: &Path) -> Result<Vec<(&'a [u8], Row)>> {
    let mut rows = Vec::new();
    for (number, text) in bytes[..whole_len(bytes)].split(|b| *b == b'\n').enumerate() {
        if text.is_empty() {
            continue;
        }
        let row = serde_json::from_slice(text)
            .with_context(|| format!("metrics file {}: line {} is not a JSON object", path.display(), number + 1))?;
        rows.push((text, row));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(step: u64, key: &str, value: f64) -> Row {
        let mut row = row(step, 0);
        row.insert(key.into(), value.into());
        row
    }

    #[test]
    fn rows_come_back_and_lines_have_a_fixed_key_order() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("metrics.jsonl");
        let mut row = row(7, 1);
        for key in ["zeta", "loss", "alpha \"quoted\""] {
            row.insert(key.into(), 0.5.into());
        }
        row.insert("nothing".into(), f64::NAN.into());
        MetricsLog::open(&path)?.write(&row)?;
        MetricsLog::open(&path)?.write(&with(8, "loss", 0.125))?;
        let text = fs::read_to_string(&path)?;
        assert_eq!(
            text,
            "{\"step\":7,\"epoch\":1,\"alpha \\\"quoted\\\"\":0.5,\"loss\":0.5,\"nothing\":null,\"zeta\":0.5}\n\
             {\"step\":8,\"epoch\":0,\"loss\":0.125}\n"
        );
        assert_eq!(read(&path)?, [row, with(8, "loss", 0.125)]);
        Ok(())
    }

    /// The rows after the checkpoint go, also where evaluation rows share a step, and so does half a line.
    #[test]
    fn a_resumed_run_continues_as_if_never_stopped() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let (broken, unbroken) = (dir.path().join("a.jsonl"), dir.path().join("b.jsonl"));
        let rows: Vec<Row> = (1..=10).map(|step| with(step / 2, "loss", 1.0 / step as f64)).collect();
        let mut log = MetricsLog::open(&unbroken)?;
        rows.iter().try_for_each(|row| log.write(row))?;
        let mut log = MetricsLog::open(&broken)?;
        rows[..8].iter().try_for_each(|row| log.write(row))?;
        let mut text = fs::read(&broken)?;
        text.extend_from_slice(b"{\"step\":5,\"ep");
        fs::write(&broken, &text)?;
        assert_eq!(cut_back_to(&broken, 2)?, 3);
        let mut log = MetricsLog::open(&broken)?;
        rows[5..].iter().try_for_each(|row| log.write(row))?;
        assert_eq!(fs::read(&broken)?, fs::read(&unbroken)?);
        Ok(())
    }

    #[test]
    fn a_half_written_line_is_never_glued_to_the_next_row() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("metrics.jsonl");
        for (before, rows) in
            [("{\"step\":1}\n{\"st", 2), ("{\"step\":1}", 2), ("{\"s", 1), ("", 1), ("{\"step\":1}\n", 2)]
        {
            fs::write(&path, before)?;
            MetricsLog::open(&path)?.write(&row(9, 0))?;
            assert_eq!(read(&path)?.len(), rows, "{before:?}");
            assert_eq!(read(&path)?[rows - 1], row(9, 0), "{before:?}");
        }
        Ok(())
    }

    #[test]
    fn damage_in_the_middle_is_an_error_that_names_the_line() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("metrics.jsonl");
        fs::write(&path, "{\"step\":1}\nnonsense\n{\"step\":2}\n")?;
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains("metrics.jsonl: line 2 is not a JSON object"), "{error}");
        assert!(cut_back_to(&path, 1).is_err());
        assert_eq!(cut_back_to(&dir.path().join("none.jsonl"), 1)?, 0);
        let error = format!("{:#}", MetricsLog::open(&dir.path().join("no/such/dir")).unwrap_err());
        assert!(error.contains("no/such/dir: can't be opened"), "{error}");
        Ok(())
    }

    #[test]
    fn a_full_disk_is_an_error_with_the_path() {
        let full = Path::new("/dev/full");
        if full.exists() {
            let mut log =
                MetricsLog { path: full.to_owned(), file: OpenOptions::new().write(true).open(full).unwrap() };
            let error = format!("{:#}", log.write(&row(1, 0)).unwrap_err());
            assert!(error.contains("/dev/full: can't be written"), "{error}");
        }
    }

    #[test]
    fn every_number_has_its_curve() {
        let mut first = with(1, "loss", 2.0);
        first.insert("loss_redundancy_term".into(), 0.25.into());
        first.insert("comment".into(), "text".into());
        first.insert("queue_age".into(), 3.into());
        first.insert(keys::TRIVIAL.into(), 5.5.into());
        let rows = [first, with(2, "loss", f64::NAN), with(2, "knn_top1", 0.5)];
        let curves = series(&rows);
        let names: Vec<&str> = curves.iter().map(|curve| curve.name.as_str()).collect();
        assert_eq!(names, ["loss", "kNN top-1", "redundancy term", "queue age"]);
        assert_eq!(curves[0].points[0], (1, 2.0));
        assert!(curves[0].points[1].1.is_nan());
        assert_eq!(curves[1].points, [(2, 0.5)]);
        assert_eq!((curves[2].kind, curves[3].kind), (SeriesKind::LossPart, SeriesKind::Monitor));
    }
}
