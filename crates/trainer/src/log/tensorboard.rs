//! TensorBoard event files, written without TensorFlow.
//!
//! An event file is a sequence of TFRecords: `u64 length, u32 masked CRC32-C of the length, payload, u32 masked CRC32-C
//! of the payload`, little endian; each payload is a protobuf `Event`, encoded here by hand. The first one holds
//! `file_version: "brain.Event:2"`.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::replace_file;

const PREFIX: &str = "events.out.tfevents.";

/// Writes one event file.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Starts a new event file in `dir` (made if missing); `wall_time` is in seconds since 1970.
    ///
    /// TensorBoard reads the files of a folder in the order of their names, so the name holds the time, or that of the
    /// newest file there should the clock have gone back. An existing file is never overwritten.
    ///
    /// # Errors
    /// If the folder or file can't be made or written.
    pub fn create(dir: &Path, wall_time: f64) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("TensorBoard folder {}: can't be made", dir.display()))?;
        let newest = event_files(dir)?.iter().filter_map(|path| start_of(path)).max();
        // `as` saturates: a time before 1970 or NaN is 0.
        let (mut second, mut number) = newest.map_or((0, 0), |(second, number)| (second, number + 1));
        if wall_time as u64 > second {
            (second, number) = (wall_time as u64, 0);
        }
        let path = dir.join(format!("{PREFIX}{second:010}.{number:04}.diptych"));
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("event file {}: can't be made", path.display()))?;
        let mut writer = EventWriter { path, file };
        writer.write(&event(0, wall_time, 3, b"brain.Event:2"))?;
        Ok(writer)
    }

    /// The file being written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes scalars of one step as one event: (tag, value).
    ///
    /// # Errors
    /// On a failed write, with the path.
    pub fn scalars(&mut self, step: u64, wall_time: f64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, number) in values {
            let mut value = Vec::new();
            put_bytes(&mut value, 1, tag.as_bytes());
            put_key(&mut value, 2, 5);
            value.extend_from_slice(&(*number as f32).to_le_bytes());
            put_bytes(&mut summary, 1, &value);
        }
        self.write(&event(step, wall_time, 5, &summary))
    }

    /// Writes a picture, `png` being the bytes of an RGB PNG file of this size.
    ///
    /// # Errors
    /// On a failed write, with the path.
    pub fn image(&mut self, step: u64, wall_time: f64, tag: &str, width: u32, height: u32, png: &[u8]) -> Result<()> {
        let mut image = Vec::new();
        for (field, number) in [(1, height), (2, width), (3, 3)] {
            put_key(&mut image, field, 0);
            put_varint(&mut image, number.into());
        }
        put_bytes(&mut image, 4, png);
        let mut value = Vec::new();
        put_bytes(&mut value, 1, tag.as_bytes());
        put_bytes(&mut value, 4, &image);
        let mut summary = Vec::new();
        put_bytes(&mut summary, 1, &value);
        self.write(&event(step, wall_time, 5, &summary))
    }

    /// One record by one write, so that TensorBoard sees it at once.
    fn write(&mut self, payload: &[u8]) -> Result<()> {
        self.file
            .write_all(&record(payload))
            .with_context(|| format!("event file {}: can't be written", self.path.display()))
    }
}

/// Drops the events above `step` from every event file in `dir`, and a half-written or damaged end; returns how many
/// events were dropped. Each file is rewritten beside itself and renamed. No folder is fine: 0.
///
/// # Errors
/// If a file can't be read or rewritten.
pub fn cut_back_to(dir: &Path, step: u64) -> Result<usize> {
    let mut dropped = 0;
    for path in event_files(dir)? {
        let bytes = fs::read(&path).with_context(|| format!("event file {}: can't be read", path.display()))?;
        let (kept, above) = keep(&bytes, step);
        dropped += above;
        if kept != bytes {
            replace_file(&path, &kept).with_context(|| format!("event file {}: can't be rewritten", path.display()))?;
        }
    }
    Ok(dropped)
}

/// The whole records up to `step`, and how many lie above it.
fn keep(bytes: &[u8], step: u64) -> (Vec<u8>, usize) {
    let mut kept = Vec::with_capacity(bytes.len());
    let mut dropped = 0;
    let mut rest = bytes;
    while let Some((whole, payload)) = next_record(rest) {
        if step_of(payload).is_some_and(|at| at <= step) {
            kept.extend_from_slice(whole);
        } else {
            dropped += 1;
        }
        rest = &rest[whole.len()..];
    }
    (kept, dropped)
}

/// The event files of a folder, sorted by name.
fn event_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("TensorBoard folder {}: can't be read", dir.display());
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(context)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.with_context(context)?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The second and the number in a file's name.
fn start_of(path: &Path) -> Option<(u64, u64)> {
    let mut parts = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next().and_then(|number| number.parse().ok()).unwrap_or(0)))
}

/// An `Event` with one field of bytes beside its time and step. Proto3 leaves out a step of 0.
fn event(step: u64, wall_time: f64, field: u64, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 32);
    put_key(&mut out, 1, 1);
    out.extend_from_slice(&wall_time.to_le_bytes());
    if step > 0 {
        put_key(&mut out, 2, 0);
        put_varint(&mut out, step);
    }
    put_bytes(&mut out, field, content);
    out
}

fn put_key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    put_varint(out, field << 3 | wire_type);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_key(out, field, 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The step of an `Event`, 0 if left out; `None` if the bytes are no such message.
fn step_of(mut payload: &[u8]) -> Option<u64> {
    let mut step = 0;
    while !payload.is_empty() {
        let key = take_varint(&mut payload)?;
        let skip = match key & 7 {
            0 => {
                let value = take_varint(&mut payload)?;
                step = if key >> 3 == 2 { value } else { step };
                0
            }
            1 => 8,
            2 => usize::try_from(take_varint(&mut payload)?).ok()?,
            5 => 4,
            _ => return None,
        };
        payload = payload.get(skip..)?;
    }
    Some(step)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn record(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(payload.len() + 16);
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked_crc(&length).to_le_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(&masked_crc(payload).to_le_bytes());
    out
}

/// The first record and its payload, if it is whole and its checksums hold.
fn next_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (length_crc, rest) = rest.split_first_chunk::<4>()?;
    if masked_crc(length).to_le_bytes() != *length_crc {
        return None;
    }
    let size = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let payload = rest.get(..size)?;
    let (crc, _) = rest[size..].split_first_chunk::<4>()?;
    (masked_crc(payload).to_le_bytes() == *crc).then(|| (&bytes[..size + 16], payload))
}

/// TFRecord's mask keeps checksums of data that holds checksums from being weak.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), reflected.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

static TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: f64 = 1_700_000_000.25;
    /// Written by `tests/fixtures/make_tensorboard.py` (TensorBoard 2.21's own record writer and protobuf classes).
    const GOLDEN: &[u8] = include_bytes!("golden.tfevents");
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\nnot a whole picture";

    fn write_golden(dir: &Path) -> Result<PathBuf> {
        let mut writer = EventWriter::create(dir, TIME)?;
        writer.scalars(0, TIME + 1.0, &[("train/loss", 0.0)])?;
        writer.scalars(1, TIME + 2.0, &[("train/loss", 4.25), ("train/lr", 1e-7), ("größe/α", -0.1)])?;
        writer.scalars(300, TIME + 3.0, &[("nan", f64::NAN), ("inf", f64::INFINITY)])?;
        writer.image(300, TIME + 4.0, "views", 640, 32, PNG)?;
        writer.scalars(u64::from(u32::MAX) + 7, TIME + 5.0, &[("knn/top1", 0.783)])?;
        Ok(writer.path().to_owned())
    }

    #[test]
    fn bytes_equal_those_of_tensorboard() -> Result<()> {
        let dir = tempfile::tempdir()?;
        assert_eq!(fs::read(write_golden(dir.path())?)?, GOLDEN);
        Ok(())
    }

    /// RFC 3720, appendix B.4, and the check value of the CRC catalogue.
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn cutting_back_keeps_the_records_up_to_the_step() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = write_golden(dir.path())?;
        assert_eq!(cut_back_to(dir.path(), u64::MAX)?, 0);
        assert_eq!(fs::read(&path)?, GOLDEN);
        assert_eq!(cut_back_to(dir.path(), 300)?, 1);
        assert_eq!(cut_back_to(dir.path(), 299)?, 2);
        let kept = fs::read(&path)?;
        assert!(GOLDEN.starts_with(&kept));
        let mut rest = kept.as_slice();
        let mut steps = Vec::new();
        while let Some((whole, payload)) = next_record(rest) {
            steps.push(step_of(payload));
            rest = &rest[whole.len()..];
        }
        assert_eq!(steps, [Some(0), Some(0), Some(1)]);
        assert!(rest.is_empty());
        assert_eq!(cut_back_to(&dir.path().join("none"), 1)?, 0);
        Ok(())
    }

    /// Whatever byte a kill stops at or a disk flips, what is whole before it stays and nothing else does.
    #[test]
    fn a_damaged_end_is_cut_off() -> Result<()> {
        let mut boundaries = vec![0];
        while let Some((whole, _)) = next_record(&GOLDEN[boundaries[boundaries.len() - 1]..]) {
            boundaries.push(boundaries[boundaries.len() - 1] + whole.len());
        }
        assert_eq!(boundaries.len(), 7);
        for end in 0..GOLDEN.len() {
            let whole = *boundaries.iter().rfind(|at| **at <= end).unwrap_or(&0);
            let mut flipped = GOLDEN.to_vec();
            flipped[end] ^= 0x10;
            for bytes in [&GOLDEN[..end], &flipped] {
                assert_eq!(keep(bytes, u64::MAX), (GOLDEN[..whole].to_vec(), 0), "damage at byte {end}");
            }
        }
        let dir = tempfile::tempdir()?;
        let path = write_golden(dir.path())?;
        fs::write(&path, &GOLDEN[..GOLDEN.len() - 1])?;
        cut_back_to(dir.path(), u64::MAX)?;
        assert_eq!(fs::read(&path)?, &GOLDEN[..boundaries[5]]);
        Ok(())
    }

    #[test]
    fn a_new_file_always_sorts_last() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let times = [TIME, TIME, TIME + 9.0, TIME - 100.0, f64::NAN, TIME + 10.0];
        let paths: Vec<PathBuf> =
            times.iter().map(|time| Ok(EventWriter::create(dir.path(), *time)?.path)).collect::<Result<_>>()?;
        assert_eq!(event_files(dir.path())?, paths);
        assert_eq!(paths.len(), times.len());
        Ok(())
    }
}
