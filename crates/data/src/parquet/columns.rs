//! Which column of a Parquet file holds the images, which the labels, and what the classes are called.

use std::path::Path;

use ::parquet::basic::{ConvertedType, LogicalType, Type};
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::schema::types::ColumnDescriptor;
use serde_json::Value;

use crate::DataError;
use crate::list::display;

/// Names of columns that hold labels, the likeliest first.
const LABELS: [&str; 7] = ["label", "labels", "fine_label", "cls", "class", "target", "category"];
/// Names of columns that hold images, the likeliest first.
const IMAGES: [&str; 8] = ["image", "img", "images", "picture", "jpg", "png", "webp", "bytes"];

/// A column of labels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label {
    pub(super) place: usize,
    /// Bytes of a number; `None` for text.
    pub(super) width: Option<usize>,
}

/// The columns that are read.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) image: usize,
    pub(super) label: Option<Label>,
    pub(super) classes: Vec<String>,
}

/// Finds the columns by Hugging Face's description in the file, else by their names and types.
///
/// # Errors
/// If no column, or more than one of equal standing, may hold images.
pub(super) fn find(path: &Path, metadata: &ParquetMetaData) -> Result<Columns, DataError> {
    let file = metadata.file_metadata();
    let features = file
        .key_value_metadata()
        .into_iter()
        .flatten()
        .find(|pair| pair.key == "huggingface")
        .and_then(|pair| serde_json::from_str::<Value>(pair.value.as_deref()?).ok())
        .map_or(Value::Null, |value| value["info"]["features"].clone());
    let kind = |name: &str| features[name]["_type"].as_str();

    let columns = file.schema_descr().columns();
    let parts = |column: &ColumnDescriptor| column.path().parts().to_vec();
    // Of a structure its `bytes`; else a column of its own that is no text.
    let mut candidates: Vec<(usize, String)> = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| column.physical_type() == Type::BYTE_ARRAY && column.max_rep_level() == 0)
        .filter_map(|(place, column)| match parts(column).as_slice() {
            [name, bytes] if bytes == "bytes" => Some((place, name.clone())),
            [name] if !is_text(column) => Some((place, name.clone())),
            _ => None,
        })
        .collect();
    let rank = |name: &str| {
        let known = IMAGES.iter().position(|known| known.eq_ignore_ascii_case(name));
        (kind(name) != Some("Image"), known.unwrap_or(IMAGES.len()))
    };
    candidates.sort_by_key(|(place, name)| (rank(name), *place));
    let names = || {
        let all: Vec<String> =
            columns.iter().take(20).map(|column| display(column.path().string().as_bytes())).collect();
        format!("{}{}", all.join(", "), if columns.len() > 20 { ", ..." } else { "" })
    };
    let image = match candidates.as_slice() {
        [] => {
            let problem = format!(
                "no column holds images: expected a structure image with a column bytes, or a column of bytes; it has {}",
                names()
            );
            return Err(DataError::format(path, problem));
        }
        [(place, _)] => *place,
        [(place, first), (_, second), ..] if rank(first) < rank(second) => *place,
        [(_, first), (_, second), ..] => {
            let problem = format!(
                "which column holds the images cannot be known, {} or {}: name one of them image",
                display(first.as_bytes()),
                display(second.as_bytes())
            );
            return Err(DataError::format(path, problem));
        }
    };

    let top = |name: &str| columns.iter().position(|column| matches!(parts(column).as_slice(), [only] if only == name));
    let described = || {
        let all = features.as_object()?;
        all.iter().find(|(_, feature)| feature["_type"] == "ClassLabel").map(|(name, _)| name.clone())
    };
    let name = LABELS.iter().map(|name| (*name).to_owned()).chain(described()).find(|name| {
        top(name).is_some_and(|place| width(&columns[place]).is_some() && columns[place].max_rep_level() == 0)
    });
    let label = name.as_deref().and_then(top);
    let label = label.and_then(|place| Some(Label { place, width: width(&columns[place])? }));
    let classes = name.and_then(|name| names_of(&features[&name])).unwrap_or_default();
    Ok(Columns { image, label, classes })
}

/// Whether a column is text.
fn is_text(column: &ColumnDescriptor) -> bool {
    matches!(column.logical_type_ref(), Some(LogicalType::String | LogicalType::Enum | LogicalType::Json))
        || matches!(column.converted_type(), ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON)
}

/// How wide a label of this column is, if it may be one: `Some(None)` for text.
#[allow(clippy::option_option)]
fn width(column: &ColumnDescriptor) -> Option<Option<usize>> {
    match column.physical_type() {
        Type::INT32 => Some(Some(4)),
        Type::INT64 => Some(Some(8)),
        Type::BYTE_ARRAY if is_text(column) => Some(None),
        _ => None,
    }
}

/// The names of a `ClassLabel`.
fn names_of(feature: &Value) -> Option<Vec<String>> {
    let names = feature["names"].as_array()?;
    names.iter().map(|name| name.as_str().map(|name| display(name.as_bytes()))).collect()
}
