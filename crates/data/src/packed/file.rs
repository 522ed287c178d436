//! Writing a packed file: records as they come, then the index, then the header; under its own name only when it is whole.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use diptych_augment::PixelFormat;

use super::about::{About, depth_number};
use super::layout::{ENTRY, Encoding, Entry, HEADER, Header, NO_LABEL, checksum};
use crate::DataError;

/// An image as it goes into the file.
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) key: u64,
    pub(crate) label: Option<u32>,
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) format: PixelFormat,
    pub(crate) encoding: Encoding,
    pub(crate) bytes: Vec<u8>,
}

/// A file in the making, beside the place where it will be; dropped before [`finish`](Self::finish) it is removed.
pub(crate) struct Writer {
    file: BufWriter<File>,
    out: PathBuf,
    beside: Beside,
    at: u64,
    entries: Vec<u8>,
    names: Vec<u8>,
}

/// The unfinished file: gone when this is, unless it was renamed.
struct Beside {
    path: PathBuf,
    renamed: bool,
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.renamed {
            // There is nobody left to tell; the next pack takes what stays there over.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Writer {
    /// Begins the file that will be `out`; its folder is made where it is missing.
    ///
    /// # Errors
    /// If nothing can be written there, or another process is writing the same file.
    pub(crate) fn begin(out: &Path) -> Result<Self, DataError> {
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder).map_err(|source| DataError::io("make the folder", folder, source))?;
        }
        let mut name = out.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let path = out.with_file_name(name);
        let cannot = |source| DataError::io("write", &path, source);
        // One that a killed process has left is taken over; one that is being written is locked.
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(cannot)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(DataError::Invalid(format!(
                "{} is being written by another process: wait for it, or give another name",
                path.display()
            )));
        }
        let beside = Beside { path: path.clone(), renamed: false };
        file.set_len(0).map_err(cannot)?;
        let mut writer = Self {
            file: BufWriter::with_capacity(1 << 20, file),
            out: out.into(),
            beside,
            at: 0,
            entries: Vec::new(),
            names: Vec::new(),
        };
        writer.put(&[0; HEADER])?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.at += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|source| DataError::io("write", &self.beside.path, source))
    }

    /// Adds an image.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn add(&mut self, record: &Record) -> Result<(), DataError> {
        let entry = Entry {
            at: self.at,
            len: record.bytes.len() as u64,
            key: record.key,
            name_at: self.names.len() as u64,
            name_len: record.name.len() as u32,
            checksum: checksum(&record.bytes),
            width: record.width as u32,
            height: record.height as u32,
            label: record.label.unwrap_or(NO_LABEL),
            channels: record.format.channels as u8,
            depth: depth_number(record.format.depth),
            encoding: record.encoding as u8,
        };
        self.entries.extend(entry.to_bytes());
        self.names.extend(record.name.as_bytes());
        self.put(&record.bytes)
    }

    /// Ends the file and puts it in its place; returns its length.
    ///
    /// # Errors
    /// If it cannot be written or renamed.
    pub(crate) fn finish(mut self, about: &About) -> Result<u64, DataError> {
        let entries_at = self.at;
        let (entries, names, about) =
            (std::mem::take(&mut self.entries), std::mem::take(&mut self.names), about.to_bytes());
        let index = [&entries[..], &names, &about].concat();
        self.put(&index)?;
        let header = Header {
            index_checksum: checksum(&index),
            file_len: self.at,
            entries_at,
            entries: (entries.len() / ENTRY) as u64,
            names_len: names.len() as u64,
            about_len: about.len() as u64,
        };
        let path = self.beside.path.clone();
        let cannot = |source| DataError::io("write", &path, source);
        self.file.seek(SeekFrom::Start(0)).map_err(cannot)?;
        self.file.write_all(&header.to_bytes()).map_err(cannot)?;
        self.file.flush().map_err(cannot)?;
        // Before the renaming, so that a power cut never leaves a file of this name that is not whole.
        self.file.get_ref().sync_all().map_err(cannot)?;
        std::fs::rename(&path, &self.out).map_err(|source| DataError::io("write", &self.out, source))?;
        self.beside.renamed = true;
        Ok(header.file_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_given_up_leaves_nothing_and_one_at_work_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new/set.pack");
        std::fs::create_dir_all(out.parent().unwrap()).unwrap();
        std::fs::write(folder.path().join("new/set.pack.partial"), b"left by a killed process").unwrap();
        let first = Writer::begin(&out).unwrap();
        let error = Writer::begin(&out).err().unwrap().to_string();
        assert!(error.contains("set.pack.partial is being written by another process"), "{error}");
        drop(first);
        assert_eq!(std::fs::read_dir(out.parent().unwrap()).unwrap().count(), 0);
    }
}
