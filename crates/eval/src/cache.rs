//! Features kept in files, so that a second evaluation of the same weights on the same images reads them.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use diptych_data::Dataset;
use diptych_nn::{Backbone, ParamStore};
use safetensors::{Dtype, SafeTensors, serialize, tensor::TensorView};
use sha2::{Digest, Sha256};

use crate::key::{VERSION, hex, key};
use crate::{Features, Transform, features};

/// Bytes that a folder may hold; beyond them the oldest files make room.
const MOST_BYTES: u64 = 8 << 30;
const ENDING: &str = ".safetensors";

/// A network whose features are kept.
#[derive(Clone, Copy)]
pub struct Embedder<'a> {
    /// The network.
    pub backbone: &'a dyn Backbone,
    /// All of its parameters and running statistics.
    pub params: &'a ParamStore,
    /// What the parameters do not tell, such as strides: any text that differs where two networks with the same parameters
    /// compute something else.
    pub architecture: &'a str,
}

/// Features, and whether they were computed now.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The features, equal to those of [`features`] in every bit.
    pub features: Features,
    /// Whether they come from a file.
    pub hit: bool,
    /// Why they could not be kept for the next time, where that failed: a full disk, a folder that may not be written.
    pub problem: Option<String>,
}

/// A folder of features, each file named by a hash (SHA-256) of all that its features depend on. These are the values of the weights, the *content* of the images in their order (the bytes of each image file, or its pixels where there is no
/// file; so a changed image is never mistaken for the old one, whatever its size and time, while a renamed folder is recognized), the
/// [`Transform`], the version of this crate, and the kind of device and instruction set, since both change the rounding.
/// Labels are never kept: they are asked of the data set. A file that is damaged, or holds something else, is made again.
///
/// A folder holds at most 8 GiB: then the files that were written first are removed. Any file may be deleted at any time.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    most_bytes: u64,
}

impl Cache {
    /// The cache in `folder`, which is created when there is something to keep.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), most_bytes: MOST_BYTES }
    }

    /// The user's own: `features` in [`diptych_data::cache_folder`]. `None` where the user has no such folder.
    pub fn of_user() -> Option<Self> {
        Some(Self::new(diptych_data::cache_folder()?.join("features")))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// [`features`] of `dataset`, from a file if one has them, and kept in one if not.
    ///
    /// Each image is read once to know what it is, and decoded only if its features are not there yet.
    ///
    /// # Errors
    /// As [`features`]. A file that cannot be read or written is no error.
    pub fn features(&self, network: Embedder, dataset: &Arc<dyn Dataset>, transform: &Transform) -> Result<Kept> {
        let key = key(network, dataset.as_ref(), transform)?;
        let path = self.folder.join(format!("{key}{ENDING}"));
        if let Some(features) = read(&path, &key, dataset.as_ref(), transform) {
            return Ok(Kept { features, hit: true, problem: None });
        }
        let features = features(network.backbone, dataset, transform)?;
        let problem = self.write(&path, &key, &features).err().map(|error| format!("{error:#}"));
        Ok(Kept { features, hit: false, problem })
    }

    fn write(&self, path: &Path, key: &str, features: &Features) -> Result<()> {
        let cannot = || format!("features can't be kept in {}", self.folder.display());
        let (rows, width) = features.x.dims2()?;
        let x: Vec<u8> = features.x.flatten_all()?.to_vec1::<f32>()?.iter().flat_map(|v| v.to_le_bytes()).collect();
        let indices: Vec<u8> = features.indices.iter().flat_map(|i| i.to_le_bytes()).collect();
        let metadata = HashMap::from([
            ("format".to_string(), VERSION.to_string()),
            ("key".to_string(), key.to_string()),
            ("sha256".to_string(), checksum(&x, &indices)),
        ]);
        let tensors = [
            ("features", TensorView::new(Dtype::F32, vec![rows, width], &x)?),
            ("indices", TensorView::new(Dtype::U32, vec![rows], &indices)?),
        ];
        let bytes = serialize(tensors, Some(metadata))?;
        std::fs::create_dir_all(&self.folder).with_context(cannot)?;
        // By another name first: whoever reads at this moment sees all or nothing.
        let mut file = tempfile::NamedTempFile::new_in(&self.folder).with_context(cannot)?;
        file.write_all(&bytes).with_context(cannot)?;
        file.persist(path).with_context(cannot)?;
        self.make_room(path);
        Ok(())
    }

    /// Removes the oldest files until the rest is small enough; `newest` stays.
    fn make_room(&self, newest: &Path) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        let mut files: Vec<_> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name();
                let key = name.to_str()?.strip_suffix(ENDING)?;
                let ours = key.len() == 64 && key.bytes().all(|digit| digit.is_ascii_hexdigit());
                let data = entry.metadata().ok().filter(|data| ours && data.is_file())?;
                Some((data.modified().ok()?, data.len(), entry.path()))
            })
            .collect();
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, size, path) in files {
            if bytes <= self.most_bytes {
                break;
            }
            if path != newest && std::fs::remove_file(&path).is_ok() {
                bytes -= size;
            }
        }
    }
}

/// The features in the file at `path`, if all of it is as it should be.
fn read(path: &Path, key: &str, dataset: &dyn Dataset, transform: &Transform) -> Option<Features> {
    let bytes = std::fs::read(path).ok()?;
    let (_, header) = SafeTensors::read_metadata(&bytes).ok()?;
    let metadata = header.metadata().clone()?;
    let file = SafeTensors::deserialize(&bytes).ok()?;
    let (x, indices) = (file.tensor("features").ok()?, file.tensor("indices").ok()?);
    let same = |name: &str, value: &str| metadata.get(name).is_some_and(|found| found == value);
    let intact = same("format", VERSION) && same("key", key) && same("sha256", &checksum(x.data(), indices.data()));
    let (&[rows, width], &[images]) = (x.shape(), indices.shape()) else { return None };
    if !intact || x.dtype() != Dtype::F32 || indices.dtype() != Dtype::U32 || rows != images || rows == 0 {
        return None;
    }
    let indices: Vec<u32> = indices.data().as_chunks().0.iter().map(|four| u32::from_le_bytes(*four)).collect();
    let skipped = dataset.len().checked_sub(rows)?;
    let in_order = indices.is_sorted_by(|a, b| a < b) && indices.iter().all(|&i| (i as usize) < dataset.len());
    // Where too many images are unreadable, the error comes from reading them.
    if !in_order || skipped as f64 > transform.max_error_share * dataset.len() as f64 {
        return None;
    }
    let values: Vec<f32> = x.data().as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
    let x = Tensor::from_vec(values, (rows, width), &Device::Cpu).ok()?;
    let labels = indices.iter().map(|&i| dataset.label(i as usize)).collect();
    Some(Features { x, labels, indices, skipped })
}

fn checksum(x: &[u8], indices: &[u8]) -> String {
    hex(&Sha256::new().chain_update(x).chain_update(indices).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Colors, MeanColor, transform};
    use diptych_nn::{BatchNorm, Group};

    /// A network with weights to change, and a folder.
    struct Case {
        folder: tempfile::TempDir,
        params: ParamStore,
    }

    impl Case {
        fn new() -> Result<Self> {
            let mut params = ParamStore::new(0, &Device::Cpu);
            BatchNorm::new(&mut params.scope(Group::Trunk), 3, 1.0)?;
            Ok(Self { folder: tempfile::tempdir()?, params })
        }

        fn cache(&self) -> Cache {
            Cache::new(self.folder.path().join("features"))
        }

        fn ask(&self, dataset: &Arc<dyn Dataset>, transform: &Transform) -> Result<Kept> {
            let network = Embedder { backbone: &MeanColor, params: &self.params, architecture: "mean color" };
            self.cache().features(network, dataset, transform)
        }

        fn files(&self) -> Vec<PathBuf> {
            let entries = std::fs::read_dir(self.cache().folder()).unwrap();
            let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
            files.sort();
            files
        }
    }

    fn same(a: &Features, b: &Features) -> Result<bool> {
        Ok(a.x.to_vec2::<f32>()? == b.x.to_vec2::<f32>()?
            && a.labels == b.labels
            && a.indices == b.indices
            && a.skipped == b.skipped)
    }

    #[test]
    fn the_second_time_features_come_from_the_file() -> Result<()> {
        let case = Case::new()?;
        let dataset: Arc<dyn Dataset> = Arc::new(Colors::new(20, 3));
        let first = case.ask(&dataset, &transform(4, 1))?;
        // Another batch size and another number of threads change nothing.
        let second = case.ask(&dataset, &transform(16, 2))?;
        assert!(!first.hit && second.hit && first.problem.is_none());
        assert!(same(&first.features, &second.features)?);
        assert!(same(&second.features, &features(&MeanColor, &dataset, &transform(5, 1))?)?);
        assert_eq!(case.files().len(), 1);
        Ok(())
    }

    #[test]
    fn other_weights_data_or_preparation_are_other_features() -> Result<()> {
        let case = Case::new()?;
        let dataset: Arc<dyn Dataset> = Arc::new(Colors::new(20, 3));
        let plain = transform(4, 1);
        assert!(!case.ask(&dataset, &plain)?.hit);
        let fewer: Arc<dyn Dataset> = Arc::new(Colors::new(19, 3));
        assert!(!case.ask(&fewer, &plain)?.hit);
        // The same images in another order.
        let order = (0..20).rev().collect();
        let turned: Arc<dyn Dataset> = Arc::new(diptych_data::Subset::new(dataset.clone(), order)?);
        assert!(!case.ask(&turned, &plain)?.hit);
        assert!(!case.ask(&dataset, &Transform { size: 7, ..plain.clone() })?.hit);
        assert!(!case.ask(&dataset, &Transform { mean: [0.4; 3].into(), ..plain.clone() })?.hit);
        let network = Embedder { backbone: &MeanColor, params: &case.params, architecture: "another" };
        assert!(!case.cache().features(network, &dataset, &plain)?.hit);
        let (_, param) = case.params.iter().next().context("it has parameters")?;
        param.var.set(&(param.var.as_tensor() + 1e-6)?)?;
        assert!(!case.ask(&dataset, &plain)?.hit);
        assert!(case.ask(&dataset, &plain)?.hit);
        assert_eq!(case.files().len(), 7);
        Ok(())
    }

    /// A picture that is exchanged for one of the same number of bytes, with its time set back, is seen.
    #[test]
    fn a_changed_image_is_never_taken_for_the_old_one() -> Result<()> {
        let case = Case::new()?;
        let images = case.folder.path().join("images");
        std::fs::create_dir(&images)?;
        // An uncompressed format: every picture has the same size.
        let paint = |name: &str, level: u8| -> Result<()> {
            let mut bmp = b"BM\x66\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x04\0\0\0\x04\0\0\0\x01\0\x18\0".to_vec();
            bmp.resize(54, 0);
            bmp.extend([level; 48]);
            Ok(std::fs::write(images.join(name), bmp)?)
        };
        (0..4).try_for_each(|i| paint(&format!("{i}.bmp"), 40 * i))?;
        let open = || -> Result<Arc<dyn Dataset>> { Ok(Arc::new(diptych_data::ImageFolder::open(&images)?.0)) };
        let first = case.ask(&open()?, &transform(4, 1))?;
        assert!(case.ask(&open()?, &transform(4, 1))?.hit);
        let (file, data) = (images.join("2.bmp"), std::fs::metadata(images.join("2.bmp"))?);
        paint("2.bmp", 200)?;
        std::fs::File::options().write(true).open(&file)?.set_modified(data.modified()?)?;
        let second = case.ask(&open()?, &transform(4, 1))?;
        assert!(!second.hit && !same(&first.features, &second.features)?);
        // Another place for the same images is no other data.
        let moved = case.folder.path().join("moved");
        std::fs::rename(&images, &moved)?;
        let elsewhere: Arc<dyn Dataset> = Arc::new(diptych_data::ImageFolder::open(&moved)?.0);
        assert!(case.ask(&elsewhere, &transform(4, 1))?.hit);
        Ok(())
    }

    #[test]
    fn a_damaged_or_foreign_file_is_made_again() -> Result<()> {
        let case = Case::new()?;
        let (dataset, plain): (Arc<dyn Dataset>, _) = (Arc::new(Colors::new(20, 3)), transform(4, 1));
        let first = case.ask(&dataset, &plain)?;
        let path = case.files().remove(0);
        let good = std::fs::read(&path)?;
        let flipped = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        };
        // A bit of a feature, a bit of the header, half a file, none, another format, the features of other images.
        let other: Arc<dyn Dataset> = Arc::new(Colors::new(20, 2));
        case.ask(&other, &plain)?;
        let foreign = case.files().into_iter().find(|file| *file != path).context("two files")?;
        let foreign = std::fs::read(foreign)?;
        let bad = [
            flipped(good.len() - 100),
            flipped(20),
            good[..good.len() / 2].to_vec(),
            Vec::new(),
            b"P6".to_vec(),
            foreign,
        ];
        for (i, bytes) in bad.into_iter().enumerate() {
            std::fs::write(&path, bytes)?;
            let again = case.ask(&dataset, &plain)?;
            assert!(!again.hit, "case {i}");
            assert!(same(&again.features, &first.features)?);
            assert!(case.ask(&dataset, &plain)?.hit, "case {i}");
        }
        Ok(())
    }

    #[test]
    fn the_oldest_files_make_room_and_others_are_left_alone() -> Result<()> {
        let case = Case::new()?;
        let plain = transform(4, 1);
        let sets: Vec<Arc<dyn Dataset>> = (20..23).map(|n| Arc::new(Colors::new(n, 3)) as Arc<dyn Dataset>).collect();
        case.ask(&sets[0], &plain)?;
        let size = std::fs::metadata(&case.files()[0])?.len();
        std::fs::write(case.cache().folder().join("notes.safetensors"), vec![0; 10_000])?;
        let cache = Cache { most_bytes: 2 * size + size / 2, ..case.cache() };
        let network = Embedder { backbone: &MeanColor, params: &case.params, architecture: "mean color" };
        for set in &sets[1..] {
            std::thread::sleep(std::time::Duration::from_millis(20));
            cache.features(network, set, &plain)?;
        }
        assert_eq!(case.files().len(), 3);
        assert!(case.ask(&sets[2], &plain)?.hit && case.ask(&sets[1], &plain)?.hit && !case.ask(&sets[0], &plain)?.hit);
        Ok(())
    }

    #[test]
    fn a_folder_that_cannot_be_written_costs_only_the_time() -> Result<()> {
        let case = Case::new()?;
        std::fs::write(case.cache().folder(), "a file where the folder should be")?;
        let dataset: Arc<dyn Dataset> = Arc::new(Colors::new(6, 3));
        let kept = case.ask(&dataset, &transform(4, 1))?;
        assert!(!kept.hit && kept.problem.is_some_and(|problem| problem.contains("features can't be kept in ")));
        assert_eq!(kept.features.indices.len(), 6);
        Ok(())
    }
}
