//! What features depend on, as a hash: weights, images, preparation.

use anyhow::Result;
use candle_core::DType;
use diptych_data::Dataset;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::{Embedder, Transform};

/// The version of the files, part of their names: another layout, or other features from the same input, is another version.
pub(crate) const VERSION: &str = "diptych features 1";

/// The hash of all that features depend on, in hexadecimal digits.
pub(crate) fn key(network: Embedder, dataset: &dyn Dataset, transform: &Transform) -> Result<String> {
    let mut hash = Sha256::new();
    // The length goes in too, so that ["ab", "c"] is not ["a", "bc"].
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    let device = network.backbone.device();
    let kind = if device.is_cpu() { diptych_kernels::isa() } else { "GPU" };
    for text in [VERSION, env!("CARGO_PKG_VERSION"), network.architecture, kind] {
        add(text.as_bytes());
    }
    for (name, param) in network.params.iter() {
        let values = param.var.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        add(format!("{name} {:?} {:?}", param.var.dtype(), param.var.dims()).as_bytes());
        add(&bytes);
    }
    add(format!("{} {:?} {:?}", transform.size, transform.mean, transform.std).as_bytes());
    add(format!("{:?} {}", dataset.format(), dataset.len()).as_bytes());
    // What the decoder makes of an image belongs to it too: there are two for JPEG.
    if let Some(pixels) = (0..dataset.len()).find_map(|i| pixels(dataset, i)) {
        add(&pixels);
    }
    let images: Vec<[u8; 32]> = (0..dataset.len()).into_par_iter().map(|i| image(dataset, i)).collect();
    images.iter().for_each(|image| add(image));
    Ok(hex(&hash.finalize()))
}

/// The hash of one image: of its file, of its pixels, or that it cannot be read.
fn image(dataset: &dyn Dataset, i: usize) -> [u8; 32] {
    let of = |kind: &[u8], bytes: &[u8]| Sha256::new().chain_update(kind).chain_update(bytes).finalize().into();
    match dataset.encoded(i) {
        Ok(Some(file)) => of(b"file", &file),
        Ok(None) => pixels(dataset, i).map_or_else(|| of(b"unreadable", b""), |pixels| of(b"pixels", &pixels)),
        Err(_) => of(b"unreadable", b""),
    }
}

/// Sides and pixels of an image; `None` if it cannot be decoded.
fn pixels(dataset: &dyn Dataset, i: usize) -> Option<Vec<u8>> {
    let picture = dataset.shared(i).ok()?;
    let mut bytes: Vec<u8> =
        [picture.width(), picture.height()].iter().flat_map(|n| (*n as u64).to_le_bytes()).collect();
    match picture.as_rgb() {
        Some(image) => bytes.extend(&image.pixels),
        None => {
            let channels = picture.format().channels;
            let mut values = Vec::new();
            picture.normalize_onto(&vec![0.0; channels], &vec![1.0; channels], &mut values);
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
    }
    Some(bytes)
}

/// Hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
