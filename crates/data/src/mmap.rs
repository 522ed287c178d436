//! A file as memory, read by the system where it is touched: the only unsafe code of this crate.
//!
//! What is mapped counts as the system's file cache (`RssFile` in `/proc/self/status`), which it takes back when memory is short, and not
//! as this program's own memory. So a file may be much larger than memory.
//!
//! **A file must not shrink while it is mapped.** Touching what is gone, or what a failing disk cannot give, ends the process with the
//! signal SIGBUS; no program can turn that into an error of one image. Files of this project are therefore never changed in place: they are
//! written beside their place and renamed, which leaves a map of the old file whole.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::DataError;

/// A file that is mapped into memory, for reading.
pub(crate) struct Mapped {
    map: Mmap,
    path: PathBuf,
}

impl Mapped {
    /// Maps the whole of the file at `path`.
    ///
    /// # Errors
    /// If it cannot be opened or mapped.
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        let cannot = |source| DataError::io("read", path, source);
        let file = File::open(path).map_err(cannot)?;
        // SAFETY: the map is read-only, and its bytes are only ever looked at as numbers that are checked. That the file be not cut
        // or overwritten by others meanwhile is what the head of this file asks of users; nothing of ours does so.
        let map = unsafe { Mmap::map(&file) }.map_err(cannot)?;
        Ok(Self { map, path: path.into() })
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Where the file lies, as it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells the system that parts are read in no order, so that it reads nothing ahead by itself.
    pub(crate) fn expect_random(&self) {
        // A hint: where it is not taken, reading is as correct as before.
        #[cfg(unix)]
        let _ = self.map.advise(memmap2::Advice::Random);
    }

    /// Tells the system that these bytes are read next, so that it fetches all of them at once and not page by page.
    pub(crate) fn expect(&self, start: usize, len: usize) {
        #[cfg(unix)]
        let _ = self.map.advise_range(memmap2::Advice::WillNeed, start, len);
        #[cfg(not(unix))]
        let _ = (start, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_holds_the_bytes_of_the_file_even_when_another_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&path, [7u8; 10_000]).unwrap();
        std::fs::write(&other, [8u8; 10]).unwrap();
        let map = Mapped::open(&path).unwrap();
        map.expect_random();
        map.expect(5000, 100);
        map.expect(9999, 100_000);
        std::fs::rename(&other, &path).unwrap();
        assert_eq!((map.bytes(), map.path()), (&[7u8; 10_000][..], &*path));
        assert_eq!(Mapped::open(&path).unwrap().bytes(), [8; 10]);
    }

    #[test]
    fn what_cannot_be_mapped_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nowhere");
        let error = Mapped::open(&path).err().unwrap().to_string();
        assert!(error.starts_with(&format!("cannot read {}: ", path.display())), "{error}");
        std::fs::write(&path, []).unwrap();
        assert!(Mapped::open(&path).unwrap().bytes().is_empty());
    }
}
