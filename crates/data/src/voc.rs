//! PASCAL VOC's image sets: images that may show several classes at once (Everingham et al. 2010).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diptych_augment::Picture;
use diptych_random::hash;

use crate::dataset::Fingerprint;
use crate::decode::read;
use crate::{DataError, Dataset, Reading, Splits, decode_file};

/// Images of one split of a VOC folder, in the order of its lists.
///
/// `ImageSets/Main/CLASS_SPLIT.txt` says of every image of a split whether it shows the class: 1 it does, -1 it does not, 0 it is too difficult to say.
/// The images are `JPEGImages/ID.jpg`. To everything that wants one class per image the set has no labels.
pub struct VocImages {
    root: PathBuf,
    ids: Vec<Box<str>>,
    classes: Vec<String>,
    /// `[images, classes]`: 1 shown, 0 not, -1 left out.
    targets: Vec<i8>,
    fingerprint: u64,
}

/// The splits of the VOC folder at `root`; `None` where there is none.
///
/// # Errors
/// If its lists can't be read, or do not fit each other.
pub(crate) fn open(root: &Path) -> Result<Option<Splits>, DataError> {
    let lists = root.join("ImageSets").join("Main");
    if !lists.is_dir() || !root.join("JPEGImages").is_dir() {
        return Ok(None);
    }
    let mut classes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in std::fs::read_dir(&lists).map_err(|source| DataError::io("list", &lists, source))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some((class, split)) = name.strip_suffix(".txt").and_then(|stem| stem.rsplit_once('_')) {
            classes.entry(split.to_string()).or_default().push(class.to_string());
        }
    }
    classes.values_mut().for_each(|names| names.sort());
    let pair = [("trainval", "test"), ("train", "val")]
        .into_iter()
        .find(|(train, test)| classes.contains_key(*train) && classes.contains_key(*test));
    let Some((train, test)) = pair else {
        let problem =
            "expected lists such as aeroplane_trainval.txt and aeroplane_test.txt (or _train.txt and _val.txt)";
        return Err(DataError::format(lists, problem));
    };
    if classes[train] != classes[test] {
        let problem =
            format!("the classes of its _{train}.txt and its _{test}.txt lists differ; each class needs both");
        return Err(DataError::format(lists, problem));
    }
    let [learned, judged] = [train, test].map(|split| VocImages::open(root, &lists, split, &classes[train]));
    let (learned, judged) = (learned?, judged?);
    let note = format!(
        "{}: {} {train} and {} {test} images, each of which may show several of the {} classes",
        root.display(),
        learned.len(),
        judged.len(),
        learned.classes.len(),
    );
    Ok(Some(Splits { train: Arc::new(learned), test: Some(Arc::new(judged)), labeled_train: None, notes: vec![note] }))
}

impl VocImages {
    fn open(root: &Path, lists: &Path, split: &str, classes: &[String]) -> Result<Self, DataError> {
        let mut ids: Vec<Box<str>> = Vec::new();
        let mut columns = Vec::with_capacity(classes.len());
        for class in classes {
            let file = lists.join(format!("{class}_{split}.txt"));
            let text = std::fs::read_to_string(&file).map_err(|source| DataError::io("read", &file, source))?;
            let rows = rows(&text).map_err(|problem| DataError::format(&file, problem))?;
            let (names, column): (Vec<&str>, Vec<i8>) = rows.into_iter().unzip();
            if columns.is_empty() {
                ids = names.into_iter().map(Box::from).collect();
            } else if !names.iter().copied().eq(ids.iter().map(|id| &**id)) {
                let problem =
                    format!("it does not list the same images as {}_{split}.txt, in the same order", classes[0]);
                return Err(DataError::format(&file, problem));
            }
            columns.push(column);
        }
        if ids.is_empty() {
            return Err(DataError::format(lists, format!("its _{split}.txt lists name no image")));
        }
        let targets: Vec<i8> = (0..ids.len()).flat_map(|i| columns.iter().map(move |column| column[i])).collect();
        let mut fingerprint = Fingerprint::new("voc");
        ids.iter().for_each(|id| fingerprint.add(id.as_bytes()));
        Ok(Self { root: root.into(), ids, classes: classes.to_vec(), targets, fingerprint: fingerprint.finish() })
    }

    fn path(&self, i: usize) -> PathBuf {
        self.root.join("JPEGImages").join(self.name(i))
    }
}

/// The images of a list, each with 1 (shown), 0 (not) or -1 (left out).
fn rows(text: &str) -> Result<Vec<(&str, i8)>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(place, line)| {
            let mut words = line.split_whitespace();
            let value = |word| match word {
                "1" => Some(1),
                "-1" => Some(0),
                "0" => Some(-1),
                _ => None,
            };
            match (words.next(), words.next().and_then(value), words.next()) {
                // An id becomes a file's name.
                (Some(id), Some(value), None) if !id.contains(['/', '\\']) && !id.starts_with('.') => Ok((id, value)),
                _ => Err(format!("line {} is not an image's id and 1, -1 or 0, such as: 000012 -1", place + 1)),
            }
        })
        .collect()
}

impl Dataset for VocImages {
    fn len(&self) -> usize {
        self.ids.len()
    }
    fn get(&self, i: usize) -> Result<Picture, DataError> {
        decode_file(&self.path(i), Some(&self.name(i)), Reading::Rgb)
    }
    fn encoded(&self, i: usize) -> Result<Option<Vec<u8>>, DataError> {
        read(&self.path(i)).map(Some).map_err(|reason| DataError::Decode { name: self.name(i), reason })
    }
    fn label(&self, _: usize) -> Option<u32> {
        None
    }
    fn classes(&self) -> &[String] {
        &[]
    }
    fn targets(&self, i: usize) -> Option<&[i8]> {
        Some(&self.targets[i * self.classes.len()..][..self.classes.len()])
    }
    fn target_classes(&self) -> &[String] {
        &self.classes
    }
    fn name(&self, i: usize) -> String {
        format!("{}.jpg", self.ids[i])
    }
    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
    fn key(&self, i: usize) -> u64 {
        hash(self.name(i).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cached, OpenOptions, Subset};

    /// Lists of two classes over three training and two test images, the first training image a JPEG.
    fn folder(lists: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in ["ImageSets/Main", "JPEGImages"] {
            std::fs::create_dir_all(root.path().join(name)).unwrap();
        }
        let image = image::RgbImage::from_pixel(9, 7, image::Rgb([200, 30, 40]));
        image.save(root.path().join("JPEGImages/000001.jpg")).unwrap();
        let whole = [
            ("cat_trainval", "000001  1\n000003 -1\n000005  0\n"),
            ("dog_trainval", "000001  1\n000003  1\n000005 -1\n"),
            ("cat_test", "000002 -1\n000004  1\n"),
            ("dog_test", "000002  1\n000004 -1\n"),
            ("trainval", "000001\n000003\n000005\n"),
        ];
        for (name, text) in whole.iter().chain(lists) {
            std::fs::write(root.path().join("ImageSets/Main").join(format!("{name}.txt")), text).unwrap();
        }
        root
    }

    fn refused(lists: &[(&str, &str)]) -> String {
        crate::open(folder(lists).path(), &OpenOptions::default()).unwrap_err().to_string()
    }

    #[test]
    fn several_things_on_one_image() -> Result<(), DataError> {
        let root = folder(&[]);
        let splits = crate::open(root.path(), &OpenOptions::default())?;
        let (train, test) = (&splits.train, splits.test.as_ref().unwrap());
        assert_eq!((train.len(), test.len(), train.target_classes()), (3, 2, &["cat".to_string(), "dog".into()][..]));
        let of = |set: &Arc<dyn Dataset>| (0..set.len()).map(|i| set.targets(i).unwrap().to_vec()).collect::<Vec<_>>();
        assert_eq!((of(train), of(test)), (vec![vec![1, 1], vec![0, 1], vec![-1, 0]], vec![vec![0, 1], vec![1, 0]]));
        assert!(!splits.labeled() && train.label(0).is_none() && train.classes().is_empty());
        assert_eq!((train.get(0)?.width(), train.name(2)), (9, "000005.jpg".to_string()));
        assert!(train.get(1).unwrap_err().is_about_one_image());
        let some: Arc<dyn Dataset> = Arc::new(Cached::new(Arc::new(Subset::new(train.clone(), vec![2, 0])?), 1000));
        assert_eq!((of(&some), some.target_classes().len()), (vec![vec![-1, 0], vec![1, 1]], 2));
        Ok(())
    }

    #[test]
    fn lists_that_do_not_fit_are_named() {
        let text = refused(&[("dog_test", "000002  1\n000006 -1\n")]);
        assert!(text.contains("dog_test.txt") && text.contains("same images as cat_test.txt"), "{text}");
        let text = refused(&[("dog_trainval", "000001  1\n000003  yes\n")]);
        assert!(text.contains("line 2 is not an image's id and 1, -1 or 0"), "{text}");
        assert!(refused(&[("cat_test", "../000002 1\n")]).contains("line 1 is not an image's id"));
        assert!(refused(&[("cow_test", "000002 1\n")]).contains("classes of its _trainval.txt and its _test.txt"));
    }
}
