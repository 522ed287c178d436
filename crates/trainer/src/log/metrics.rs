//! `metrics.jsonl`: one JSON object a line, `step` and `epoch` first, then the other keys in order.
//!
//! The file is the run's primary record: it is appended to and flushed a row at a time, a resumed run cuts it back to
//! its checkpoint's step, and the report's curves are read from it.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

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
    /// A half-written last line (of a killed run) is ended, so that the next row starts on a line of its own;
    /// [`cut_back_to`] removes it.
    ///
    /// # Errors
    /// If the file can't be opened or written.
    pub fn open(path: &Path) -> Result<Self> {
        let _ = path;
        bail!("unfinished")
    }

    /// Writes one row and hands it to the operating system at once.
    ///
    /// The keys come in a fixed order: `step`, `epoch`, then by name. A number that is not finite is written as `null`.
    ///
    /// # Errors
    /// If the row has no integer `step`, or on a failed write (a full disk, for instance), with the path.
    pub fn write(&mut self, row: &Row) -> Result<()> {
        let _ = row;
        bail!("unfinished")
    }
}

/// Drops all rows with a step above `step`, and a half-written last line; returns how many rows were dropped.
///
/// The file is rewritten beside itself and renamed, so a kill leaves the old or the new one. No file is fine: 0.
///
/// # Errors
/// If the file can't be read or rewritten, or a line other than the last is not a JSON object with a `step`.
pub fn cut_back_to(path: &Path, step: u64) -> Result<usize> {
    let _ = (path, step);
    bail!("unfinished")
}

/// All whole rows of a metrics file in file order; a half-written last line is left out. No file gives no rows.
///
/// # Errors
/// If the file can't be read, or a line other than the last is not a JSON object.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let _ = path;
    bail!("unfinished")
}

/// The report's curves from metrics rows.
///
/// Known keys: `loss`, `lr`, `knn_top1`, `linear_top1`, `embedding_std`, `images_per_second`, `data_wait_share`,
/// `alignment`, `uniformity`, `effective_rank`, and any `loss_*` as a part of the loss. Others are left out.
/// `null` becomes NaN.
pub fn series(rows: &[Row]) -> Vec<Series> {
    let _ = rows;
    Vec::new()
}
