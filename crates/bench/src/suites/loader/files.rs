//! The files that the cases read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use diptych_augment::Image;
use diptych_data::{Dataset, OpenOptions, PackFormat, PackOptions};
use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};
use rayon::prelude::*;

use crate::setting::Scratch;
use crate::suites::pictures::picture;

/// The quality at which most photographs are stored.
const QUALITY: u8 = 90;

/// Where the training images of a folder of photographs are. One image to test on lies beside them, so that none of them is held out.
pub(super) const TRAIN: &str = "train";
const TEST: &str = "test";

/// A folder of JPEG files with halved color resolution (4:2:0): `distinct` pictures, each under as many names as it takes to have `count`.
///
/// # Errors
/// If there is no room.
pub(super) fn photographs(scratch: &Scratch, count: usize, distinct: usize, size: [usize; 2]) -> Result<PathBuf> {
    scratch.once(&format!("photographs-{count}-{}x{}", size[0], size[1]), |folder| {
        let [train, test] = [TRAIN, TEST].map(|name| folder.join(name));
        std::fs::create_dir_all(&train)?;
        std::fs::create_dir_all(&test)?;
        let path = |i: usize| train.join(format!("{i:06}.jpg"));
        (0..distinct.min(count)).into_par_iter().try_for_each(|i| -> Result<()> {
            std::fs::write(path(i), jpeg(&picture(i, size)?)?)?;
            (1..)
                .map(|k| i + k * distinct)
                .take_while(|j| *j < count)
                .try_for_each(|j| Ok(std::fs::hard_link(path(i), path(j))?))
        })?;
        std::fs::copy(path(0), test.join("0.jpg"))?;
        Ok(())
    })
}

/// A picture as the bytes of a JPEG file.
fn jpeg(image: &Image) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    encoder.encode(&image.pixels, u16::try_from(image.width)?, u16::try_from(image.height)?, ColorType::Rgb)?;
    Ok(bytes)
}

/// What is in a folder of CIFAR-10: `count` training pictures in one file, whose name is given, and one to test on, which nobody reads.
pub(super) const CIFAR_FILE: &str = "data_batch_1.bin";
const CIFAR_SIDE: usize = 32;

/// Pictures in the format of CIFAR-10's binary version.
///
/// # Errors
/// If there is no room.
pub(super) fn cifar(scratch: &Scratch, count: usize) -> Result<PathBuf> {
    scratch.once(&format!("cifar-{count}"), |folder| {
        std::fs::create_dir(folder)?;
        for (name, count) in [(CIFAR_FILE, count), ("test_batch.bin", 1)] {
            let mut bytes = Vec::new();
            for i in 0..count {
                let image = picture(i, [CIFAR_SIDE; 2])?;
                bytes.push((i % 10) as u8);
                for c in 0..3 {
                    bytes.extend(image.pixels.iter().skip(c).step_by(3));
                }
            }
            std::fs::write(folder.join(name), bytes)?;
        }
        Ok(())
    })
}

/// The training images of whatever lies at `path`.
///
/// # Errors
/// If it is no data set.
pub(super) fn training(path: &Path) -> Result<Arc<dyn Dataset>> {
    Ok(diptych_data::open(path, &OpenOptions::default())?.train)
}

/// A folder of photographs as two tar shards, one for each split.
///
/// # Errors
/// If there is no room.
pub(super) fn shards(scratch: &Scratch, photographs: &Path) -> Result<PathBuf> {
    scratch.once("shards", |folder| {
        std::fs::create_dir(folder)?;
        for split in [TRAIN, TEST] {
            let mut builder = tar::Builder::new(std::fs::File::create(folder.join(format!("{split}-000.tar")))?);
            let files = std::fs::read_dir(photographs.join(split))?;
            let mut names: Vec<_> = files.map(|file| Ok(file?.file_name())).collect::<std::io::Result<_>>()?;
            names.sort();
            for name in names {
                builder.append_path_with_name(photographs.join(split).join(&name), &name)?;
            }
            builder.into_inner()?.sync_all()?;
        }
        Ok(())
    })
}

/// What is packed of a folder of photographs.
///
/// # Errors
/// If there is no room.
pub(super) fn packed(scratch: &Scratch, photographs: &Path, format: PackFormat, name: &str) -> Result<PathBuf> {
    scratch.once(name, |path| {
        let threads = rayon::current_num_threads();
        let options = PackOptions { format, threads, short_side: SHORT_SIDE, ..PackOptions::default() };
        diptych_data::pack(photographs, path, &options, &mut |_, _| ())?;
        Ok(())
    })
}

/// The shorter side of packed pictures.
pub(super) const SHORT_SIDE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suites::pictures::PHOTOGRAPH;

    /// Files of a size that photographs have: how long they take to decode goes with it.
    #[test]
    fn photographs_are_as_large_as_real_ones() -> Result<()> {
        let scratch = Scratch::default();
        let path = photographs(&scratch, 6, 4, PHOTOGRAPH)?;
        let set = training(&path)?;
        assert_eq!(set.len(), 6);
        assert!(set.get(1)? == set.get(5)? && set.get(1)? != set.get(2)?);
        for i in 0..set.len() {
            let bytes = std::fs::metadata(path.join(TRAIN).join(format!("{i:06}.jpg")))?.len();
            assert!((40_000..80_000).contains(&bytes), "{bytes} bytes");
            let decoded = set.get(i)?;
            assert_eq!([decoded.width(), decoded.height()], PHOTOGRAPH);
        }
        Ok(())
    }

    #[test]
    fn cifars_pictures_come_back() -> Result<()> {
        let scratch = Scratch::default();
        let set = training(&cifar(&scratch, 12)?)?;
        assert_eq!((set.len(), set.label(11)), (12, Some(1)));
        assert!(set.get(7)? == picture(7, [CIFAR_SIDE; 2])?.into());
        Ok(())
    }

    /// The same pictures in the same order, and smaller ones.
    #[test]
    fn photographs_are_packed_and_put_in_a_shard() -> Result<()> {
        let scratch = Scratch::default();
        let path = photographs(&scratch, 3, 2, [300, 280])?;
        let (folder, shards) = (training(&path)?, training(&shards(&scratch, &path)?)?);
        let packed = training(&packed(&scratch, &path, PackFormat::Raw, "a.pack")?)?;
        assert_eq!((packed.len(), folder.len(), shards.len()), (3, 3, 3));
        assert_eq!(packed.get(2)?.height(), SHORT_SIDE);
        for i in 0..3 {
            assert!(shards.get(i)? == folder.get(i)?, "{i}");
        }
        Ok(())
    }
}
