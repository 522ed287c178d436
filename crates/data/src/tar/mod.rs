//! Tar files in webdataset's convention: members whose paths agree up to the first dot of the file name are one sample.
//!
//! Of a sample, the image is the member with an image's ending, and the label that of its `.cls` (a number, or a class's
//! name), or `"label"` or `"cls"` in its `.json`. One pass over the headers finds them; nothing is ever unpacked, so a
//! member's name is a name and no path, whatever it holds.

mod headers;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use crate::DataError;
use crate::list;
use crate::shards::index::{Index, Row, Segment, Storage, UNLABELED};
use crate::source::read_at;
use headers::{Headers, Member, What};

/// The most bytes of a `.cls` member.
const MAX_CLS: u64 = 1 << 12;
/// The most bytes of a `.json` member that is looked into for a label.
const MAX_JSON: u64 = 1 << 20;
/// The most bytes of a class's name.
const MAX_NAME: usize = 256;

/// Reads a label, if there is one.
type Parse = fn(&[u8]) -> Result<Option<String>, ()>;

/// What is known of a sample while the headers go by.
#[derive(Default)]
struct Sample {
    image: Option<Member>,
    label: Option<String>,
}

/// Finds the images of a tar file of `size` bytes.
///
/// # Errors
/// If it is no tar file, cut off or damaged, or holds no image.
pub(crate) fn index(path: &Path, file: &File, size: u64) -> Result<Index, DataError> {
    let mut samples = Samples::default();
    let mut headers = Headers::new(path, file, size);
    while let Some(member) = headers.next()? {
        samples.add(member, |at, size| {
            let mut bytes = vec![0; size as usize];
            read_at(file, at, &mut bytes).map_err(|source| DataError::io("read", path, source))?;
            Ok(bytes)
        })?;
    }
    let notes = samples.notes();
    let mut index = Index {
        segments: vec![Segment { start: 0, at: 0, stored: size, storage: Storage::Plain }],
        logical: size,
        notes: notes.iter().map(|notes| format!("passed over {notes}")).collect(),
        ..Index::default()
    };
    let mut labels = HashMap::new();
    for sample in samples.all {
        let Some(image) = sample.image else { continue };
        let label = match sample.label {
            None => UNLABELED,
            Some(text) => *labels.entry(text).or_insert_with_key(|text| {
                index.labels.push(text.clone());
                index.labels.len() as u32 - 1
            }),
        };
        let len = u32::try_from(image.size).unwrap_or(u32::MAX);
        index.rows.push(Row { start: image.at, len, label });
        index.names.push(&image.name);
    }
    if index.rows.is_empty() {
        let found = notes.unwrap_or_else(|| "the archive is empty".into());
        return Err(DataError::Empty { path: path.into(), found, expected: list::ENDINGS });
    }
    Ok(index)
}

/// The samples so far, in the order of their first members, and what is no part of one.
#[derive(Default)]
struct Samples {
    all: Vec<Sample>,
    places: HashMap<Vec<u8>, usize>,
    links: usize,
    sparse: usize,
    special: usize,
    hidden: usize,
    further: usize,
    unread: usize,
    others: usize,
}

impl Samples {
    /// Takes a member in; `read` gives some bytes of the file, from and how many.
    fn add(&mut self, member: Member, read: impl Fn(u64, u64) -> Result<Vec<u8>, DataError>) -> Result<(), DataError> {
        let counted = match member.what {
            What::File => None,
            What::Folder => return Ok(()),
            What::Link => Some(&mut self.links),
            What::Sparse => Some(&mut self.sparse),
            What::Other => Some(&mut self.special),
        };
        if let Some(count) = counted {
            *count += 1;
            return Ok(());
        }
        let slash = member.name.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let file_name = &member.name[slash..];
        if file_name.starts_with(b".") {
            self.hidden += 1;
            return Ok(());
        }
        let key = slash + file_name.iter().position(|&byte| byte == b'.').unwrap_or(file_name.len());
        let ending = file_name.iter().rposition(|&byte| byte == b'.').map_or(&b""[..], |dot| &file_name[dot + 1..]);
        let (is_image, is_cls) = (list::is_image_ending(ending), ending.eq_ignore_ascii_case(b"cls"));
        if !is_image && !is_cls && !ending.eq_ignore_ascii_case(b"json") {
            self.others += 1;
            return Ok(());
        }
        let all = &mut self.all;
        let place = *self.places.entry(member.name[..key].to_vec()).or_insert_with(|| {
            all.push(Sample::default());
            all.len() - 1
        });
        let sample = &mut all[place];
        if is_image {
            if sample.image.is_some() {
                self.further += 1;
            } else {
                sample.image = Some(member);
            }
        } else {
            let (most, parse) = if is_cls { (MAX_CLS, cls as Parse) } else { (MAX_JSON, json as Parse) };
            match if member.size > most { Err(()) } else { parse(&read(member.at, member.size)?) } {
                // What .cls says goes before what .json says.
                Ok(Some(label)) if is_cls || sample.label.is_none() => sample.label = Some(label),
                Ok(_) => {}
                Err(()) => self.unread += 1,
            }
        }
        Ok(())
    }

    /// What was passed over, as a sentence's end.
    fn notes(&self) -> Option<String> {
        let without = self.all.iter().filter(|sample| sample.image.is_none()).count();
        let parts: Vec<String> = [
            (self.links, "link(s)"),
            (self.sparse, "sparse file(s)"),
            (self.special, "special member(s), such as devices"),
            (self.hidden, "hidden file(s)"),
            (self.further, "further image(s) of a sample"),
            (without, "label(s) without image"),
            (self.unread, "unreadable label(s)"),
            (self.others, "other file(s)"),
        ]
        .into_iter()
        .filter(|&(count, _)| count > 0)
        .map(|(count, what)| format!("{count} {}", what.replace("(s)", if count == 1 { "" } else { "s" })))
        .collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// The label of a `.cls` member.
fn cls(bytes: &[u8]) -> Result<Option<String>, ()> {
    text_label(std::str::from_utf8(bytes).map_err(drop)?)
}

/// The label of a `.json` member; none if it has no key for one.
fn json(bytes: &[u8]) -> Result<Option<String>, ()> {
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(drop)?;
    match ["label", "cls"].iter().find_map(|key| value.get(key)) {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(serde_json::Value::Number(number)) => text_label(&number.as_i64().ok_or(())?.to_string()),
        Some(serde_json::Value::String(text)) => text_label(text),
        Some(_) => Err(()),
    }
}

/// A number in decimal, or a name on one line.
fn text_label(text: &str) -> Result<Option<String>, ()> {
    let text = text.trim();
    match text.parse::<i64>() {
        // As data sets mark what is not to be known.
        Ok(-1) => Ok(None),
        Ok(number) => Ok(Some(number.to_string())),
        Err(_) if text.is_empty() || text.len() > MAX_NAME || text.contains('\n') => Err(()),
        Err(_) => Ok(Some(text.to_owned())),
    }
}
