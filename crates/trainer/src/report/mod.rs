//! The report of a run: one self-contained HTML file, readable while the run goes on.
//!
//! [`ReportData`] is plain data; [`render()`] turns it into a page and [`write()`] puts it in place atomically. The page
//! needs no network, no font and no script; charts are inline SVG, pictures are data URIs within a byte budget.
//!
//! Code map: `page` is the frame, `charts` decides which curves make which chart, `chart`, `curve` and `scale` draw
//! one, `gallery` and `pictures` show images, `map` and `mosaic` the embeddings, `look` is the page of embedded images without a run, `figure` compares runs, `html` writes text and numbers, `report.css` is the
//! look. Every text of the caller goes through `html::escape`, and every list has a limit, so the size is bounded.

use std::path::Path;

use anyhow::{Context, Result};

mod chart;
mod charts;
mod curve;
mod figure;
mod gallery;
mod html;
mod look;
mod map;
mod model;
mod mosaic;
mod page;
mod pictures;
#[cfg(test)]
mod sample;
mod scale;
#[cfg(test)]
mod tests;

pub(crate) use page::upper_first;

pub use figure::{Figure, Group};
pub use html::{escape, percent, value};
pub use look::{Gallery, gallery};
pub use model::{
    Map, MapImage, MapPoint, Neighbor, Note, NoteLevel, Picture, Query, ReportData, Series, SeriesKind, Status,
    Summary, ViewRow,
};

/// The page, as HTML text of less than 5 MB.
pub fn render(data: &ReportData) -> String {
    page::html(data)
}

/// This machine, as rows of (what, value).
pub fn machine() -> Vec<(String, String)> {
    crate::machine::describe()
}

/// A page in the report's look around `body`, which is HTML: self-contained, without scripts.
pub fn sheet(title: &str, body: &str) -> String {
    page::sheet(title, body)
}

/// Renders the report into `path`, by a temporary file beside it and a rename: a reader never sees half a page.
///
/// # Errors
/// If the file can't be written, with the path.
pub fn write(path: &Path, data: &ReportData) -> Result<()> {
    crate::log::replace_file(path, render(data).as_bytes())
        .with_context(|| format!("report {}: can't be written", path.display()))
}
