//! The report of a run: one self-contained HTML file, readable while the run goes on.
//!
//! [`ReportData`] is plain data; [`render()`] turns it into a page and [`write`] puts it in place atomically. The page
//! needs no network, no font and no script; charts are inline SVG, pictures are data URIs within a byte budget.

use std::path::Path;

use anyhow::Result;

mod model;

pub use model::{
    Map, MapPoint, Neighbour, Note, NoteLevel, Picture, Query, ReportData, Series, SeriesKind, Status, Summary, ViewRow,
};

/// The page, as HTML text of less than 5 MB.
pub fn render(data: &ReportData) -> String {
    let _ = data;
    String::new()
}

/// Renders the report into `path`, by a temporary file beside it and a rename: a reader never sees half a page.
///
/// # Errors
/// If the file can't be written, with the path.
pub fn write(path: &Path, data: &ReportData) -> Result<()> {
    let _ = (path, data);
    Ok(())
}
