//! Files that are read at any place: by any thread, in any order.

use std::fs::File;
use std::path::{Path, PathBuf};

/// A file that is read at any place. It is kept open, or opened for each read where there are too many to keep.
pub(crate) struct Source {
    path: PathBuf,
    file: Option<File>,
}

impl Source {
    pub(crate) fn new(path: PathBuf, keep_open: bool) -> std::io::Result<Self> {
        let file = if keep_open && cfg!(unix) { Some(File::open(&path)?) } else { None };
        Ok(Self { path, file })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `buffer` from the bytes at `at`.
    pub(crate) fn read(&self, at: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        match &self.file {
            Some(file) => read_at(file, at, buffer),
            None => read_at(&File::open(&self.path)?, at, buffer),
        }
    }
}

/// Fills `buffer` from the bytes of a file at `at`.
pub(crate) fn read_at(file: &File, at: u64, buffer: &mut [u8]) -> std::io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, buffer, at);
    #[cfg(not(unix))]
    {
        // Moves the position, so a file must not be shared between threads here; `Source` shares none.
        use std::io::{Read, Seek, SeekFrom};
        let mut file = file;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(buffer)
    }
}
