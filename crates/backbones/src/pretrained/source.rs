//! A weights file of any kind, opened: its dictionaries' keys, and its tensors one at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use diptych_nn::Layout;
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;

use super::array::Array;
use super::pickle::Id;
use super::torch::{Checkpoint, is_tensor, place};

/// An opened file.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    content: Content,
}

enum Content {
    Safetensors { bytes: Vec<u8>, start: usize, header: Metadata },
    Torch { checkpoint: Checkpoint, legacy: bool },
}

/// A key of a state dict.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    pub(crate) name: String,
    /// Where its value is in a pickle.
    id: Id,
    /// Whether its value is a tensor.
    pub(crate) tensor: bool,
}

impl Source {
    /// Opens a file and reads what it says about its tensors.
    ///
    /// # Errors
    /// If it can't be read, is none of the kinds of files that hold weights, is cut off, or its pickle is refused; one sentence that names it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let content = Content::open(path).with_context(|| path.display().to_string())?;
        Ok(Self { path: path.into(), content })
    }

    /// What kind of file it is.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.content {
            Content::Safetensors { .. } => "safetensors",
            Content::Torch { legacy: false, .. } => "PyTorch checkpoint",
            Content::Torch { legacy: true, .. } => "PyTorch checkpoint from before version 1.6",
        }
    }

    /// What it says about itself; nothing where it is a pickle.
    pub(crate) fn metadata(&self) -> HashMap<String, String> {
        match &self.content {
            Content::Safetensors { header, .. } => header.metadata().clone().unwrap_or_default(),
            Content::Torch { .. } => HashMap::new(),
        }
    }

    /// How its convolutions lie.
    ///
    /// # Errors
    /// If its metadata say what is not known.
    pub(crate) fn layout(&self) -> Result<Layout> {
        match self.metadata().get("layout").map(String::as_str) {
            None | Some("oihw") => Ok(Layout::Oihw),
            Some("ohwi") => Ok(Layout::Ohwi),
            Some(other) => {
                bail!("{}: layout={other} in the metadata is not known; oihw and ohwi are", self.path.display())
            }
        }
    }

    /// The keys of the dictionary that is the file ("") or one of its entries; `None` if there is none.
    pub(crate) fn keys(&self, container: &str) -> Option<Vec<Key>> {
        match &self.content {
            Content::Safetensors { header, .. } => container.is_empty().then(|| {
                let names: BTreeSet<String> = header.tensors().into_keys().collect();
                names.into_iter().map(|name| Key { name, id: 0, tensor: true }).collect()
            }),
            Content::Torch { checkpoint, .. } => {
                let heap = checkpoint.heap();
                let dictionary = if container.is_empty() { heap.root() } else { heap.entry(heap.root(), container)? };
                // A later entry of the same key wins.
                let mut all = BTreeMap::new();
                for (key, value) in heap.entries(dictionary)? {
                    if let Some(name) = heap.text(*key) {
                        all.insert(
                            name.to_string(),
                            Key { name: name.into(), id: *value, tensor: is_tensor(heap, *value) },
                        );
                    }
                }
                Some(all.into_values().collect())
            }
        }
    }

    /// What the file holds where it is no dictionary, for a message.
    pub(crate) fn describe(&self) -> String {
        match &self.content {
            Content::Safetensors { .. } => "tensors".into(),
            Content::Torch { checkpoint, .. } => checkpoint.heap().describe(checkpoint.heap().root()),
        }
    }

    /// A tensor's shape.
    ///
    /// # Errors
    /// If it is no tensor, or one that is not read.
    pub(crate) fn shape(&self, key: &Key) -> Result<Vec<usize>> {
        match &self.content {
            Content::Safetensors { header, .. } => {
                Ok(header.info(&key.name).with_context(|| format!("{} is missing", key.name))?.shape.clone())
            }
            Content::Torch { checkpoint, .. } => {
                let place = place(checkpoint.heap(), key.id);
                Ok(place.with_context(|| format!("{}: {}", self.path.display(), key.name))?.shape)
            }
        }
    }

    /// Reads a tensor.
    ///
    /// # Errors
    /// As [`shape`](Self::shape), or if its values are not where they should be.
    pub(crate) fn read(&mut self, key: &Key) -> Result<Array> {
        let file = self.path.display().to_string();
        match &mut self.content {
            Content::Safetensors { bytes, start, header } => {
                let info = header.info(&key.name).with_context(|| format!("{} is missing", key.name))?;
                let (from, to) = info.data_offsets;
                let data = bytes.get(*start + from..*start + to).context("a tensor lies beyond the file")?;
                Ok(Array { dtype: info.dtype, shape: info.shape.clone(), bytes: data.to_vec() })
            }
            Content::Torch { checkpoint, .. } => {
                let read = place(checkpoint.heap(), key.id).and_then(|place| checkpoint.read(&place));
                read.with_context(|| format!("{file}: {}", key.name))
            }
        }
    }
}

impl Content {
    fn open(path: &Path) -> Result<Self> {
        let mut head = Vec::new();
        let file = std::fs::File::open(path).context("can't be read")?;
        file.take(512).read_to_end(&mut head).context("can't be read")?;
        if head.starts_with(b"PK") {
            return Ok(Self::Torch { checkpoint: Checkpoint::open_zip(path)?, legacy: false });
        }
        if head.starts_with(b"\x80") && head.get(1).is_some_and(|protocol| *protocol <= 5) && head.get(2) != Some(&0) {
            return Ok(Self::Torch { checkpoint: Checkpoint::open_legacy(path)?, legacy: true });
        }
        if head.starts_with(b"\x1f\x8b") {
            bail!("is compressed with gzip; unpack it first (gunzip)")
        }
        if head.get(257..262) == Some(b"ustar") {
            bail!("is a tar archive; unpack it, or load it in PyTorch and save its state dict with torch.save")
        }
        let bytes = std::fs::read(path).context("can't be read")?;
        match SafeTensors::read_metadata(&bytes) {
            Ok((length, header)) => Ok(Self::Safetensors { start: 8 + length, bytes, header }),
            Err(error) => bail!("is not a whole safetensors file: {}", reason(&error, &bytes)),
        }
    }
}

/// What is wrong with a safetensors file, in the words of its user.
fn reason(error: &safetensors::SafeTensorError, bytes: &[u8]) -> String {
    use safetensors::SafeTensorError as E;
    let claimed = bytes.first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
    let length = bytes.len();
    match error {
        E::HeaderTooSmall => format!("it has {length} bytes, a header alone has more"),
        E::HeaderTooLarge | E::InvalidHeaderLength => {
            format!("its header claims {claimed} bytes, the file has {length}")
        }
        E::MetadataIncompleteBuffer => {
            format!(
                "its header names tensors up to another byte than the last of the file, which has {length} bytes: cut off, or made wrongly"
            )
        }
        E::InvalidOffset(key) => format!("{key} overlaps another tensor, or leaves a gap before it"),
        E::TensorInvalidInfo | E::ValidationOverflow => match liar(bytes) {
            Some((key, shape, room)) => {
                format!(
                    "its header says that {key} has shape {shape}, and gives it {room} bytes, another number than that shape needs"
                )
            }
            None => "a tensor's shape needs another number of bytes than it has".into(),
        },
        other => other.to_string(),
    }
}

/// The first tensor of a header whose shape does not need the bytes that it is given: its name, its shape as it is written, and the bytes.
fn liar(bytes: &[u8]) -> Option<(String, String, u64)> {
    let length = usize::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(bytes.get(8..length.checked_add(8)?)?).ok()?;
    header.into_iter().find_map(|(key, entry)| {
        let dtype: safetensors::Dtype = serde_json::from_value(entry.get("dtype")?.clone()).ok()?;
        let offset = |i: usize| entry.get("data_offsets")?.get(i)?.as_u64();
        let room = offset(1)?.checked_sub(offset(0)?)?;
        let sides = entry.get("shape")?.as_array()?.iter().map(serde_json::Value::as_u64);
        let needed =
            sides.collect::<Option<Vec<u64>>>()?.into_iter().try_fold(dtype.bitsize() as u64, u64::checked_mul);
        (needed != room.checked_mul(8)).then(|| (key, entry["shape"].to_string(), room))
    })
}
