//! Files for Detectron2: its names, in a `.pth` written here.
//!
//! Detectron2's checkpointer (`DetectionCheckpointer`) reads `.pkl` with Python's pickle and everything else with `torch.load`; it reads no safetensors. So this
//! is the zip archive of `torch.save`, whose pickle names tensors and nothing else: `torch.load(file, weights_only=True)` reads it.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use anyhow::{Result, bail};
use zip::write::{FullFileOptions, ZipWriter};

use super::array::Array;
use super::convention::to_detectron2;
use crate::{Architecture, BlockKind, Stem};

/// Whether Detectron2 can build this ResNet.
///
/// # Errors
/// If not, in a sentence that says why: its stem has 7x7 kernels and pooling, its depths are 18, 34, 50, 101 and 152, and its 18 and 34 have one width.
pub fn fits_detectron2(architecture: &Architecture) -> Result<()> {
    let Architecture { block, depths, base, stem, .. } = architecture;
    if *stem != Stem::Imagenet {
        bail!(
            "Detectron2's ResNets begin with 7x7 kernels and pooling (backbone.stem = imagenet); this one has the {} stem",
            stem.name()
        )
    }
    if depths.contains(&0) || (*depths == [1, 1, 1, 1]) {
        bail!("Detectron2's ResNets have 18, 34, 50, 101 or 152 layers in four stages; this one has blocks {depths:?}")
    }
    if *block == BlockKind::Basic && *base != 64 {
        bail!("Detectron2's ResNets of 18 and 34 layers have 64 channels first; this one has {base}")
    }
    Ok(())
}

/// A `.pth` file's bytes with Detectron2's names: `{"model": {...}, "__author__": "diptych", "matching_heuristics": True}`. The counts of batches are left out, as
/// its frozen norms have none.
///
/// # Errors
/// If a tensor is not f32, or more than 4 GB would be written into one.
pub fn export_detectron2(arrays: &BTreeMap<String, Array>) -> Result<Vec<u8>> {
    let renamed: Vec<(String, &Array)> =
        arrays.iter().filter_map(|(name, array)| Some((to_detectron2(name)?, array))).collect();
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut member = |name: &str, bytes: &[u8]| -> Result<()> {
        // PyTorch maps storages into memory where they begin at multiples of 64.
        let options = FullFileOptions::default().compression_method(zip::CompressionMethod::Stored).with_alignment(64);
        zip.start_file(format!("archive/{name}"), options)?;
        Ok(zip.write_all(bytes)?)
    };
    member("data.pkl", &pickle(&renamed)?)?;
    member("byteorder", b"little")?;
    for (i, (_, array)) in renamed.iter().enumerate() {
        member(&format!("data/{i}"), &array.bytes)?;
    }
    member("version", b"3\n")?;
    Ok(zip.finish()?.into_inner())
}

/// The pickle of protocol 2 that names each tensor, its storage, shape and strides.
fn pickle(tensors: &[(String, &Array)]) -> Result<Vec<u8>> {
    let mut out = b"\x80\x02}(".to_vec();
    text(&mut out, "model")?;
    out.extend(b"}(");
    for (i, (name, array)) in tensors.iter().enumerate() {
        if array.dtype != safetensors::Dtype::F32 {
            bail!("{name} holds {:?} values, weights for Detectron2 are f32", array.dtype)
        }
        text(&mut out, name)?;
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage")?;
        out.extend(b"ctorch\nFloatStorage\n");
        text(&mut out, &i.to_string())?;
        text(&mut out, "cpu")?;
        number(&mut out, array.shape.iter().product())?;
        out.extend(b"tQK\x00");
        let strides = (0..array.shape.len()).map(|side| array.shape[side + 1..].iter().product::<usize>());
        for sides in [array.shape.clone(), strides.collect()] {
            out.push(b'(');
            for side in sides {
                number(&mut out, side)?;
            }
            out.push(b't');
        }
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.push(b'u');
    text(&mut out, "__author__")?;
    text(&mut out, "diptych")?;
    text(&mut out, "matching_heuristics")?;
    out.extend(b"\x88u.");
    Ok(out)
}

fn text(out: &mut Vec<u8>, text: &str) -> Result<()> {
    out.push(b'X');
    out.extend(u32::try_from(text.len())?.to_le_bytes());
    out.extend(text.as_bytes());
    Ok(())
}

fn number(out: &mut Vec<u8>, value: usize) -> Result<()> {
    out.push(b'J');
    out.extend(i32::try_from(value)?.to_le_bytes());
    Ok(())
}
