//! A subset that a text file names, such as the lists of 1 % and 10 % of ImageNet that papers share.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::list::plural;
use crate::{DataError, Dataset, Subset};

/// The longest list that is read, in bytes.
const MAX_LIST: u64 = 1 << 30;

/// The images of `base` that the lines of `file` name, in the order of `base`. A line is an image's name, or the end of it after a `/`.
///
/// # Errors
/// If the file cannot be read, or a line names no image, or more than one.
pub(crate) fn named_in(base: Arc<dyn Dataset>, file: &Path) -> Result<Subset, DataError> {
    let cannot = |source| DataError::io("read", file, source);
    let size = std::fs::metadata(file).map_err(cannot)?.len();
    if size > MAX_LIST {
        return Err(DataError::format(
            file,
            format!("{size} bytes are too many for a list of images, one name a line"),
        ));
    }
    let text = std::fs::read_to_string(file).map_err(cannot)?;
    let mut wanted: HashMap<&str, usize> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| (line, 0))
        .collect();
    if wanted.is_empty() {
        return Err(DataError::format(file, "it names no image: expected one name a line"));
    }
    let mut indices = Vec::new();
    for i in 0..base.len() {
        let name = base.name(i);
        let ends = std::iter::once(&name[..]).chain(name.match_indices('/').map(|(at, _)| &name[at + 1..]));
        let mut found = false;
        for end in ends {
            if let Some(count) = wanted.get_mut(end) {
                *count += 1;
                found = true;
            }
        }
        if found {
            indices.push(i as u32);
        }
    }
    let mut missing: Vec<&str> = wanted.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    missing.sort_unstable();
    if let Some(first) = missing.first() {
        let (count, example) = (missing.len(), if base.is_empty() { String::new() } else { base.name(0) });
        let names = plural(count, "name");
        let problem =
            format!("{count} {names} of it are no training image, such as {first}: names look like {example}");
        return Err(DataError::format(file, problem));
    }
    if let Some((name, count)) = wanted.iter().filter(|(_, count)| **count > 1).min() {
        return Err(DataError::format(
            file,
            format!("{name} is the name of {count} images: write more of their paths"),
        ));
    }
    Subset::new(base, indices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Synthetic;
    use crate::synthetic::Split;

    fn chosen(text: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("list.txt");
        std::fs::write(&file, text).unwrap();
        let base: Arc<dyn Dataset> = Arc::new(Synthetic::new(0, Split::Train, 12, 32));
        let set = named_in(base, &file).map_err(|error| error.to_string())?;
        Ok((0..set.len()).map(|i| set.name(i)).collect())
    }

    #[test]
    fn names_are_whole_or_the_end_of_a_path() {
        assert_eq!(chosen("000007\n# a remark\n\ntrain/000002\n").unwrap(), ["train/000002", "train/000007"]);
        assert_eq!(chosen("train/000002\n000002\n").unwrap(), ["train/000002"], "twice the same is once");
    }

    #[test]
    fn what_names_nothing_is_told() {
        let error = chosen("000007\n000099\n7").unwrap_err();
        assert!(
            error.contains("2 names of it are no training image, such as 000099: names look like train/000000"),
            "{error}"
        );
        assert!(chosen("\n").unwrap_err().contains("it names no image"));
    }
}
