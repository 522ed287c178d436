//! PyTorch's files (`torch.save`): the zip archive of today and the sequence of pickles of before, read without Python.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use safetensors::Dtype;
use zip::ZipArchive;

use super::array::Array;
use super::pickle::{self, Heap, Id, Value};

/// A pickle of a checkpoint is some hundred kilobytes long.
const LONGEST_PICKLE: u64 = 1 << 28;

/// The number with which the files of PyTorch before 1.6 begin, 0x1950a86a20f9469cfc6c.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// A checkpoint whose tensors are read when they are asked for.
pub(crate) struct Checkpoint {
    heap: Heap,
    storages: Storages,
}

/// Where the values of tensors are.
enum Storages {
    /// In files of an archive, below this folder.
    Zip { archive: Box<ZipArchive<BufReader<File>>>, folder: String },
    /// In one file in memory: a key and a range of bytes each.
    Flat { bytes: Vec<u8>, ranges: BTreeMap<String, Range<usize>> },
}

/// Where a tensor is, as its pickle says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    key: String,
    dtype: Dtype,
    offset: usize,
    /// The tensor's sides.
    pub(crate) shape: Vec<usize>,
    stride: Vec<usize>,
}

impl Checkpoint {
    /// Opens a zip archive made by `torch.save`.
    ///
    /// # Errors
    /// If it is cut off or no such archive, or its pickle is refused; in words that go on after the file's name.
    pub(crate) fn open_zip(path: &Path) -> Result<Self> {
        let file = BufReader::new(File::open(path).context("can't be read")?);
        let broken = "is not a whole zip archive, as torch.save writes them: it is cut off or damaged; copy or download it again";
        let mut archive = ZipArchive::new(file).map_err(|_| anyhow!(broken))?;
        let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
        let find = |last: &str| names.iter().find(|name| *name == last || name.ends_with(&format!("/{last}"))).cloned();
        if find("constants.pkl").is_some() {
            bail!("is a TorchScript program (torch.jit.save), no checkpoint; save model.state_dict() with torch.save")
        }
        let name = find("data.pkl")
            .context("is a zip archive without data.pkl, no checkpoint; save model.state_dict() with torch.save")?;
        let folder = name.strip_suffix("data.pkl").unwrap_or_default().to_string();
        let order = member(&mut archive, &format!("{folder}byteorder"), 64).unwrap_or_default();
        if order == b"big" {
            bail!("was written by a big-endian machine; load and save it again with torch on an ordinary one")
        }
        let bytes = member(&mut archive, &name, LONGEST_PICKLE).with_context(|| broken.to_string())?;
        let (heap, _) = pickle::read(&bytes)?;
        Ok(Self { heap, storages: Storages::Zip { archive: Box::new(archive), folder } })
    }

    /// Opens what PyTorch wrote before 1.6: five pickles, and the storages after them.
    ///
    /// # Errors
    /// As [`open_zip`](Self::open_zip).
    pub(crate) fn open_legacy(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).context("can't be read")?;
        let mut at = 0;
        let mut next = |what: &str| -> Result<Heap> {
            let rest = bytes.get(at..).unwrap_or_default();
            let (heap, length) = pickle::read(rest)?;
            at += length;
            if what == "magic" && *heap.get(heap.root()) != Value::Long(MAGIC.to_vec()) {
                bail!(
                    "is a pickle, but none of torch.save's; load it in Python and save its state dict with safetensors.torch.save_file"
                )
            }
            Ok(heap)
        };
        let (_, _, system) = (next("magic")?, next("protocol")?, next("system")?);
        if system.entry(system.root(), "little_endian").is_some_and(|id| *system.get(id) == Value::Bool(false)) {
            bail!("was written by a big-endian machine; load and save it again with torch on an ordinary one")
        }
        let (heap, keys) = (next("object")?, next("keys")?);
        let kinds = storages_of(&heap);
        let mut ranges = BTreeMap::new();
        for id in keys.elements(keys.root()).unwrap_or_default() {
            let key = keys.text(*id).context("its list of storages holds what is no text")?.to_string();
            let kind = kinds.get(&key).with_context(|| format!("no tensor uses the storage {key}"))?;
            let cut = "is cut off: a storage ends beyond the file; copy or download it again";
            let head = bytes.get(at..).and_then(|rest| rest.first_chunk()).context(cut)?;
            let length =
                usize::try_from(i64::from_le_bytes(*head)).ok().and_then(|count| count.checked_mul(kind.bitsize() / 8));
            let start = at + 8;
            let end =
                length.and_then(|length| start.checked_add(length)).filter(|end| *end <= bytes.len()).context(cut)?;
            ranges.insert(key, start..end);
            at = end;
        }
        Ok(Self { heap, storages: Storages::Flat { bytes, ranges } })
    }

    /// The pickle's values.
    pub(crate) fn heap(&self) -> &Heap {
        &self.heap
    }

    /// Reads a tensor's values.
    ///
    /// # Errors
    /// If its storage is missing or too short, in words that go on after the tensor's name.
    pub(crate) fn read(&mut self, place: &Place) -> Result<Array> {
        let Place { key, dtype, offset, shape, stride } = place;
        match &mut self.storages {
            Storages::Zip { archive, folder } => {
                let storage = member(archive, &format!("{folder}data/{key}"), u64::MAX)?;
                whole(storage, place)
            }
            Storages::Flat { bytes, ranges } => {
                let range = ranges.get(key).cloned();
                let storage =
                    &bytes[range.with_context(|| format!("lies in the storage {key}, which the file lacks"))?];
                Array::gather(storage, *dtype, *offset, shape, stride)
            }
        }
    }
}

/// A tensor that may be all of its storage, which is then not copied.
fn whole(storage: Vec<u8>, place: &Place) -> Result<Array> {
    let Place { dtype, offset, shape, stride, .. } = place;
    let mut row = 1usize;
    let contiguous = shape.iter().zip(stride).rev().all(|(side, step)| {
        let fits = *side == 1 || *step == row;
        row = row.saturating_mul(*side);
        fits
    });
    if contiguous
        && *offset == 0
        && shape.len() == stride.len()
        && row.checked_mul(dtype.bitsize() / 8) == Some(storage.len())
    {
        return Ok(Array { dtype: *dtype, shape: shape.clone(), bytes: storage });
    }
    Array::gather(&storage, *dtype, *offset, shape, stride)
}

/// A file of the archive; what it claims to be long is not believed.
fn member(archive: &mut ZipArchive<BufReader<File>>, name: &str, most: u64) -> Result<Vec<u8>> {
    let entry = archive.by_name(name).map_err(|error| anyhow!("{name} can't be read from the archive: {error}"))?;
    let claimed = entry.size();
    if claimed > most {
        bail!("{name} claims {claimed} bytes, at most {most} are read")
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(claimed.min(entry.compressed_size()))?)?;
    entry
        .take(claimed)
        .read_to_end(&mut bytes)
        .map_err(|error| anyhow!("{name} can't be read from the archive: {error}"))?;
    Ok(bytes)
}

/// Every storage that a pickle names, with the type of its values.
fn storages_of(heap: &Heap) -> BTreeMap<String, Dtype> {
    let persistent = heap.all().filter_map(|value| match value {
        Value::Persistent(id) => storage(heap, *id).ok(),
        _ => None,
    });
    persistent.map(|(key, dtype, _)| (key, dtype)).collect()
}

/// Key, type and first element of what a persistent id says: `("storage", class, key, device, length)`, and for views of old a sixth part.
fn storage(heap: &Heap, id: Id) -> Result<(String, Dtype, usize)> {
    let parts = heap.elements(id).unwrap_or_default();
    let (Some(&class), Some(&key)) = (parts.get(1), parts.get(2)) else { bail!("lies in what is no storage") };
    let key = heap.text(key).context("lies in a storage without a name")?;
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        bail!("lies in a storage with the name {key:?}, which PyTorch would not give")
    }
    let class = heap.global(class).context("lies in a storage without a type")?;
    let view = parts.get(5).and_then(|view| heap.elements(*view)).and_then(|view| view.get(1));
    Ok((key.into(), dtype(class)?, view.and_then(|offset| heap.size(*offset)).unwrap_or(0)))
}

/// The type of a class of storages (`torch.FloatStorage`) or of a type's name (`torch.float32`).
fn dtype(name: &str) -> Result<Dtype> {
    Ok(match name.strip_prefix("torch.").unwrap_or(name).trim_start_matches("cuda.") {
        "DoubleStorage" | "float64" => Dtype::F64,
        "FloatStorage" | "float32" => Dtype::F32,
        "HalfStorage" | "float16" => Dtype::F16,
        "BFloat16Storage" | "bfloat16" => Dtype::BF16,
        "LongStorage" | "int64" => Dtype::I64,
        "IntStorage" | "int32" => Dtype::I32,
        "ShortStorage" | "int16" => Dtype::I16,
        "CharStorage" | "int8" => Dtype::I8,
        "ByteStorage" | "uint8" | "storage.UntypedStorage" => Dtype::U8,
        "BoolStorage" | "bool" => Dtype::BOOL,
        _ => bail!("is of {name}, which is not read; convert it to float32 in Python"),
    })
}

/// Where the tensor is that a value would become in PyTorch.
///
/// # Errors
/// If it is none, or one of a kind that is not read; in words that go on after the tensor's name.
pub(crate) fn place(heap: &Heap, mut id: Id) -> Result<Place> {
    // A parameter is made from a tensor, which may itself be one.
    for _ in 0..4 {
        let Value::Call { callable, args, .. } = heap.get(id) else { break };
        let (Some(function), Some(args)) = (heap.global(*callable), heap.elements(*args)) else { break };
        match (function, args) {
            ("torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", [data, ..]) => {
                id = *data
            }
            (
                "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor_v3",
                [from, offset, shape, stride, rest @ ..],
            ) => {
                let Value::Persistent(storage_id) = heap.get(*from) else { break };
                let (key, mut kind, first) = storage(heap, *storage_id)?;
                if let (true, Some(name)) = (function.ends_with("v3"), rest.get(2).and_then(|id| heap.global(*id))) {
                    kind = dtype(name)?;
                }
                let sizes =
                    |id: Id| -> Option<Vec<usize>> { heap.elements(id)?.iter().map(|id| heap.size(*id)).collect() };
                let place = sizes(*shape)
                    .zip(sizes(*stride))
                    .zip(heap.size(*offset).and_then(|offset| offset.checked_add(first)));
                let ((shape, stride), offset) =
                    place.context("has a shape, strides or an offset that are no whole numbers of at least 0")?;
                return Ok(Place { key, dtype: kind, offset, shape, stride });
            }
            _ => break,
        }
    }
    bail!("is {}, no tensor", heap.describe(id))
}

/// Whether a value looks like a tensor, read or not.
pub(crate) fn is_tensor(heap: &Heap, id: Id) -> bool {
    match heap.get(id) {
        Value::Call { callable, .. } => {
            heap.global(*callable).is_some_and(|name| name.starts_with("torch._utils._rebuild_"))
        }
        _ => false,
    }
}
