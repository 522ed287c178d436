//! Which files a user means by a file, a folder or a pattern, and to which splits they belong.

use std::path::{Path, PathBuf};

use super::Kind;
use crate::DataError;
use crate::list;

/// The most files a pattern may stand for.
const MAX_FILES: usize = 100_000;
/// How deep shards are looked for under a folder: `train/0000.parquet`, `data/train-00000.parquet`, `default/train/0000.parquet`.
const DEPTH: usize = 3;

/// Files by split.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) train: Vec<PathBuf>,
    /// Empty where there is no test split.
    pub(crate) test: Vec<PathBuf>,
    pub(crate) notes: Vec<String>,
}

/// The shards that `spec` stands for; `None` if it is no shard, no pattern of shards and no folder of them.
///
/// A folder with an image in it is a folder of images: archives often lie beside what was unpacked from them.
///
/// # Errors
/// If a pattern is malformed or one of its files is missing, or a folder holds shards of both kinds.
pub(crate) fn find(spec: &Path) -> Result<Option<Found>, DataError> {
    if spec.is_file() {
        let single = || Found { train: vec![spec.into()], ..Found::default() };
        return Ok(Kind::of(spec).map(|_| single()));
    }
    if spec.is_dir() {
        let mut files = Vec::new();
        let mut images = false;
        walk(spec, DEPTH, &mut files, &mut images);
        if files.is_empty() || images || list::any_image(spec) {
            return Ok(None);
        }
        files.sort_by_cached_key(|path| list::path_bytes(path));
        one_kind(spec, &files)?;
        let name = |path: &PathBuf| list::display(&list::path_bytes(path.strip_prefix(spec).unwrap_or(path)));
        let names: Vec<String> = files.iter().map(name).collect();
        return Ok(Some(by_split(&spec.display().to_string(), files, &names)));
    }
    let Some(pattern) = spec.to_str().filter(|text| text.contains('{')) else { return Ok(None) };
    let files = expand(pattern).map_err(|problem| DataError::Invalid(format!("data {pattern}: {problem}")))?;
    let files: Vec<PathBuf> = files.into_iter().map(PathBuf::from).collect();
    if let Some(missing) = files.iter().find(|path| !path.is_file()) {
        return Err(DataError::Invalid(format!(
            "data {pattern} stands for {} files, and {} is not there",
            files.len(),
            missing.display()
        )));
    }
    if let Some(other) = files.iter().find(|path| Kind::of(path).is_none()) {
        return Err(DataError::format(other, "a pattern stands for .tar or .parquet files"));
    }
    one_kind(spec, &files)?;
    let notes = vec![format!("{pattern}: {} files", files.len())];
    Ok(Some(Found { train: files, notes, ..Found::default() }))
}

fn one_kind(spec: &Path, files: &[PathBuf]) -> Result<(), DataError> {
    let of = |kind| files.iter().filter(|path| Kind::of(path) == Some(kind)).count();
    match (of(Kind::Tar), of(Kind::Parquet)) {
        (0, _) | (_, 0) => Ok(()),
        (tars, parquets) => Err(DataError::format(
            spec,
            format!(
                "it holds {tars} .tar and {parquets} .parquet files, and which are meant cannot be known: give a folder of one kind"
            ),
        )),
    }
}

/// Collects the shards at most `depth` folders below, hidden ones left out.
fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>, images: &mut bool) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if list::is_hidden(&entry.file_name()) {
            continue;
        }
        if path.is_dir() {
            if depth > 1 {
                walk(&path, depth - 1, files, images);
            }
        } else if Kind::of(&path).is_some() && path.is_file() {
            files.push(path);
        } else if list::is_image(&path) {
            *images = true;
        }
        if *images {
            return;
        }
    }
}

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Split {
    Train,
    Validation,
    Test,
}

/// The split that a path under the data folder says: by a word of the file's name, else of a folder's, the last one first.
fn split_of(name: &str) -> Option<Split> {
    name.rsplit('/').find_map(|part| {
        part.split(|c: char| !c.is_alphabetic()).find_map(|word| match word.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Split::Train),
            "val" | "valid" | "validation" | "dev" => Some(Split::Validation),
            "test" | "testing" | "eval" | "evaluation" => Some(Split::Test),
            _ => None,
        })
    })
}

/// Whether a folder's or file's name says a split.
#[cfg(feature = "hub")]
pub(crate) fn says_split(name: &str) -> bool {
    split_of(name).is_some()
}

/// Files by the splits that their names say; validation goes before test, whose labels are often withheld. Names that say nothing are
/// training images where no name says `train`.
pub(crate) fn by_split(data: &str, files: Vec<PathBuf>, names: &[String]) -> Found {
    let splits: Vec<Option<Split>> = names.iter().map(|name| split_of(name)).collect();
    let has = |split| splits.contains(&Some(split));
    // Without a training split, and without files that could be one, all is one set.
    let train = match (has(Split::Train), splits.contains(&None)) {
        (true, _) => Some(Some(Split::Train)),
        (false, true) => Some(None),
        (false, false) => None,
    };
    let test = [Split::Validation, Split::Test].into_iter().find(|&split| train.is_some() && has(split));
    let mut found = Found::default();
    let mut left = 0;
    for (path, split) in files.into_iter().zip(splits) {
        if train.is_none_or(|train| train == split) {
            found.train.push(path);
        } else if test.is_some() && split == test {
            found.test.push(path);
        } else {
            left += 1;
        }
    }
    let count = |files: &[PathBuf]| format!("{} {}", files.len(), list::plural(files.len(), "file"));
    if let Some(test) = test {
        let (train, test_name) = (count(&found.train), if test == Split::Test { "test" } else { "validation" });
        let test = count(&found.test);
        found.notes.push(format!("{data}: {train} of the train split, {test} of the {test_name} split"));
    }
    if left > 0 {
        let verb = if left == 1 { "is" } else { "are" };
        found.notes.push(format!("{data}: {left} {} of other splits {verb} left alone", list::plural(left, "file")));
    }
    found
}

/// The texts that a pattern stands for: `{000..012}` counts, with as many digits as are written; `{a,b}` lists.
///
/// # Errors
/// A sentence, if a brace is not closed, holds neither, or there would be more than [`MAX_FILES`].
pub(crate) fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let mut texts = vec![String::new()];
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, after) = after.split_once('}').ok_or("a { is not closed; write shards-{000..012}.tar")?;
        let parts = alternatives(inside)?;
        if texts.len() * parts.len() > MAX_FILES {
            return Err(format!("it stands for more than {MAX_FILES} files"));
        }
        texts = texts.iter().flat_map(|text| parts.iter().map(move |part| format!("{text}{before}{part}"))).collect();
        rest = after;
    }
    texts.iter_mut().for_each(|text| text.push_str(rest));
    Ok(texts)
}

fn alternatives(inside: &str) -> Result<Vec<String>, String> {
    let Some((first, last)) = inside.split_once("..") else {
        if !inside.contains(',') {
            return Err(format!("{{{inside}}} is neither a range such as {{000..012}} nor a list such as {{a,b}}"));
        }
        return Ok(inside.split(',').map(str::to_owned).collect());
    };
    let number = |text: &str| -> Result<usize, String> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten().ok_or_else(|| format!("{{{inside}}} is no range of numbers"))
    };
    let (from, to) = (number(first)?, number(last)?);
    if from > to {
        return Err(format!("{{{inside}}} counts down"));
    }
    if to - from >= MAX_FILES {
        return Err(format!("it stands for more than {MAX_FILES} files"));
    }
    let width = if first.starts_with('0') { first.len() } else { 0 };
    Ok((from..=to).map(|number| format!("{number:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_count_and_list() {
        let expanded = |pattern| expand(pattern).unwrap().join(" ");
        assert_eq!(expanded("s-{008..011}.tar"), "s-008.tar s-009.tar s-010.tar s-011.tar");
        assert_eq!(expanded("{a,b}-{9..10}.tar"), "a-9.tar a-10.tar b-9.tar b-10.tar");
        assert_eq!(expanded("x{0..0}"), "x0");
        assert_eq!(expanded("plain.tar"), "plain.tar");
        for bad in ["s-{1..", "s-{x}", "s-{5..4}", "s-{a..b}", "s-{0..99999999999999999999}", "s-{0..999999}", "{..}"] {
            assert!(expand(bad).is_err(), "{bad}");
        }
        assert!(expand(&"{0..99}".repeat(9)).is_err());
    }

    #[test]
    fn splits_are_told_by_names() {
        let splits = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let found = by_split("d", names.iter().map(PathBuf::from).collect(), &names);
            let text =
                |files: Vec<PathBuf>| files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ");
            (text(found.train), text(found.test), found.notes.len())
        };
        let hub = [
            "data/test-00000-of-00001.parquet",
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet",
        ];
        assert_eq!(splits(&hub), (hub[1..].join(" "), hub[0].into(), 1));
        assert_eq!(splits(&["a_train.tar", "a_val.tar", "a_test.tar"]), ("a_train.tar".into(), "a_val.tar".into(), 2));
        assert_eq!(splits(&["default/train/0.parquet", "default/test/0.parquet"]).1, "default/test/0.parquet");
        assert_eq!(splits(&["000.tar", "001.tar"]), ("000.tar 001.tar".into(), "".into(), 0));
        // Words, not parts of words: a contest is no test. The file's name goes before the folder's.
        assert_eq!(splits(&["contest-0.tar", "trainers-0.tar"]).1, "");
        assert_eq!(
            splits(&["test/train-0.tar", "test/val-0.tar"]),
            ("test/train-0.tar".into(), "test/val-0.tar".into(), 1)
        );
        // Names without a split are the training images beside a test split; a test split alone is a set.
        assert_eq!(splits(&["000.tar", "test-0.tar"]), ("000.tar".into(), "test-0.tar".into(), 1));
        assert_eq!(splits(&["test-0.tar", "test-1.tar"]), ("test-0.tar test-1.tar".into(), "".into(), 0));
        assert_eq!(splits(&["test-0.tar", "val-0.tar"]).1, "");
        assert_eq!(splits(&["extra.tar", "train-0.tar"]), ("train-0.tar".into(), "".into(), 1));
    }
}
