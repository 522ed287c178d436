//! Any data set as a folder of image files, for trying things out on files and for other programs.

use std::path::Path;

use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ImageEncoder, ImageResult};

use crate::{DataError, Dataset};

/// How the files are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// JPEG of quality 95: nearly the same pixels.
    Jpeg,
    /// PNG: the same pixels.
    Png,
}

/// Where the files go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileLayout {
    /// One folder per class, as [`ImageFolder`](crate::ImageFolder) reads them.
    Classes,
    /// All in one folder: the labels are left out.
    Flat,
}

/// Writes every image of `dataset` to `folder`, which is made, as `CLASS/000017.jpg` or `000017.jpg`; returns their number.
///
/// Read back, labels follow the sorted names of the classes: the names stay, the numbers may change.
///
/// # Errors
/// If there are files in `folder`, a file cannot be written, an image cannot be read, or [`FileLayout::Classes`] is asked of
/// an unlabeled set.
pub fn write_folder(
    dataset: &dyn Dataset,
    folder: impl AsRef<Path>,
    format: FileFormat,
    layout: FileLayout,
) -> Result<usize, DataError> {
    let folder = folder.as_ref();
    make_empty(folder)?;
    if layout == FileLayout::Classes {
        if dataset.classes().is_empty() {
            return Err(DataError::Invalid("the data have no labels to make class folders of: write them flat".into()));
        }
        for class in dataset.classes() {
            let path = folder.join(folder_name(class));
            std::fs::create_dir_all(&path).map_err(|source| DataError::io("make the folder", path, source))?;
        }
    }
    let ending = if format == FileFormat::Jpeg { "jpg" } else { "png" };
    for i in 0..dataset.len() {
        let mut path = folder.to_owned();
        if layout == FileLayout::Classes {
            let class = dataset.label(i).and_then(|label| dataset.classes().get(label as usize));
            let class = class.ok_or_else(|| DataError::Invalid(format!("{} has no label", dataset.name(i))))?;
            path.push(folder_name(class));
        }
        path.push(format!("{i:06}.{ending}"));
        let image = dataset.shared(i)?;
        let Some(image) = image.as_rgb() else {
            let (name, found) = (dataset.name(i), image.format());
            return Err(DataError::Invalid(format!("{name} has {found}: only 8-bit RGB is written as {ending}")));
        };
        let bytes = encode(&image.pixels, image.width as u32, image.height as u32, format).map_err(|error| {
            DataError::Invalid(format!("{} cannot be written as {ending}: {error}", dataset.name(i)))
        })?;
        std::fs::write(&path, bytes).map_err(|source| DataError::io("write", path, source))?;
    }
    Ok(dataset.len())
}

/// Makes a folder, or takes one that is empty.
fn make_empty(folder: &Path) -> Result<(), DataError> {
    std::fs::create_dir_all(folder).map_err(|source| DataError::io("make the folder", folder, source))?;
    let mut entries = std::fs::read_dir(folder).map_err(|source| DataError::io("list", folder, source))?;
    if entries.next().is_some() {
        return Err(DataError::Invalid(format!(
            "{} is not empty: give a folder that does not exist yet, so that no files are mixed",
            folder.display()
        )));
    }
    Ok(())
}

/// A class as the name of one folder that is not hidden.
fn folder_name(class: &str) -> String {
    let name: String = class.chars().map(|c| if matches!(c, '/' | '\\' | '\0') { '_' } else { c }).collect();
    if name.is_empty() || name.starts_with('.') { format!("_{name}") } else { name }
}

fn encode(pixels: &[u8], width: u32, height: u32, format: FileFormat) -> ImageResult<Vec<u8>> {
    let mut bytes = Vec::new();
    match format {
        FileFormat::Jpeg => {
            JpegEncoder::new_with_quality(&mut bytes, 95).write_image(pixels, width, height, ExtendedColorType::Rgb8)?
        }
        FileFormat::Png => PngEncoder::new(&mut bytes).write_image(pixels, width, height, ExtendedColorType::Rgb8)?,
    }
    Ok(bytes)
}
