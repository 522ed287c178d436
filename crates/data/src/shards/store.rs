//! Where indexes are kept: beside the shard, or in a cache folder where that cannot be.
//!
//! A file of this module is written under another name and renamed, so that nobody ever reads half of one. One that cannot
//! be written costs time at the next opening, nothing else.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use diptych_random::hash;
use tempfile::NamedTempFile;

use super::index::{Index, Stamp};

/// The most bytes an index may have: room for fifty million images.
const MAX_INDEX: u64 = 1 << 32;
/// The ending of an index.
pub(crate) const INDEX: &str = ".diptych-index";
/// The ending of a file of unpacked values.
pub(crate) const VALUES: &str = ".diptych-values";
/// A file of values begins with whose values they are.
const VALUES_HEADER: u64 = 8;

/// The stamp of a file that is open.
pub(crate) fn stamp(data: &Metadata) -> Stamp {
    #[cfg(unix)]
    let changed = {
        use std::os::unix::fs::MetadataExt;
        [data.mtime(), data.mtime_nsec()]
    };
    #[cfg(windows)]
    let changed = [std::os::windows::fs::MetadataExt::last_write_time(data) as i64, 0];
    #[cfg(not(any(unix, windows)))]
    let changed = [0, 0];
    Stamp { size: data.len(), changed }
}

/// The folder for what can be made again, such as an index that cannot lie beside its shard: `DIPTYCH_CACHE`, else `diptych` in
/// `XDG_CACHE_HOME` or in `.cache` of the home folder; `None` where there is none of these.
pub fn cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("DIPTYCH_CACHE")
        .or_else(|| folder("XDG_CACHE_HOME").map(|folder| folder.join("diptych")))
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache").join("diptych")))
}

/// The places for the files of one shard, best first.
pub(crate) struct Places {
    /// Paths without the ending.
    bases: Vec<PathBuf>,
    stamp: Stamp,
}

impl Places {
    /// Of the shard at `path`. Beside a link nothing is written: what it leads to belongs to somebody's store of files.
    pub(crate) fn new(path: &Path, stamp: Stamp, cache: Option<PathBuf>) -> Self {
        let mut bases = Vec::new();
        if path.symlink_metadata().is_ok_and(|data| !data.is_symlink()) {
            bases.push(path.to_owned());
        }
        if let (Some(cache), Ok(real), Some(name)) = (cache, path.canonicalize(), path.file_name()) {
            let mut base = OsString::from(format!("{:016x}-", hash(real.as_os_str().as_encoded_bytes())));
            base.push(name);
            bases.push(cache.join("indexes").join(base));
        }
        Self { bases, stamp }
    }

    /// The index that was kept, with its file of values if it has one; none that does not fit the shard as it is now.
    pub(crate) fn load(&self) -> Option<(Index, Option<PathBuf>)> {
        self.bases.iter().find_map(|base| {
            let file = File::open(with(base, INDEX)).ok()?;
            let len = file.metadata().ok().filter(|data| data.is_file() && data.len() <= MAX_INDEX)?.len();
            let mut bytes = Vec::new();
            file.take(len).read_to_end(&mut bytes).ok()?;
            let index = Index::from_bytes(&bytes, self.stamp)?;
            if index.unpacked == 0 {
                return Some((index, None));
            }
            let path = with(base, VALUES);
            let mut values = File::open(&path).ok()?;
            let mut header = [0; VALUES_HEADER as usize];
            values.read_exact(&mut header).ok()?;
            let whole = values.metadata().ok()?.len() == index.unpacked && header == self.tie();
            whole.then_some((index, Some(path)))
        })
    }

    /// Keeps an index at the place that its values are at, or at the first that takes it.
    pub(crate) fn save(&self, index: &Index, values: Option<&Path>) {
        let bytes = index.to_bytes(self.stamp);
        for base in &self.bases {
            if values.is_some_and(|values| values != with(base, VALUES)) {
                continue;
            }
            if write(base, &bytes).is_ok_and(|file| file.persist(with(base, INDEX)).is_ok()) {
                return;
            }
        }
    }

    /// What a file of values of this shard begins with.
    fn tie(&self) -> [u8; VALUES_HEADER as usize] {
        let [a, b] = self.stamp.changed;
        hash(&[self.stamp.size.to_le_bytes(), a.to_le_bytes(), b.to_le_bytes()].concat()).to_le_bytes()
    }
}

/// Writes bytes to a new file beside `base`, to be renamed.
fn write(base: &Path, bytes: &[u8]) -> std::io::Result<NamedTempFile> {
    let mut file = create(base)?;
    // Not synced: what a crash leaves of it has not its checksum.
    file.write_all(bytes)?;
    Ok(file)
}

fn create(base: &Path) -> std::io::Result<NamedTempFile> {
    let folder = base.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Beside a shard the folder is there; in the cache it may not be.
    std::fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    // Data are shared: others may read what is kept, as far as the user lets them.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.prefix(".diptych-").tempfile_in(folder)
}

fn with(base: &Path, ending: &str) -> PathBuf {
    let mut path = base.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// Values that are unpacked into a file while a shard is indexed; there is no file as long as there is no value.
#[cfg_attr(not(feature = "parquet"), allow(dead_code))]
pub(crate) struct Values<'a> {
    places: &'a Places,
    out: Option<(BufWriter<NamedTempFile>, &'a Path)>,
    len: u64,
}

#[cfg_attr(not(feature = "parquet"), allow(dead_code))]
impl<'a> Values<'a> {
    pub(crate) fn new(places: &'a Places) -> Self {
        Self { places, out: None, len: 0 }
    }

    /// Appends bytes; returns where they are in the file.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> std::io::Result<u64> {
        if self.out.is_none() {
            let mut problem = std::io::Error::other("there is no cache folder: set DIPTYCH_CACHE to one");
            for base in &self.places.bases {
                match create(base) {
                    Ok(file) => {
                        self.out = Some((BufWriter::new(file), base));
                        break;
                    }
                    Err(error) => problem = error,
                }
            }
            let Some((out, _)) = &mut self.out else { return Err(problem) };
            out.write_all(&self.places.tie())?;
            self.len = VALUES_HEADER;
        }
        if let Some((out, _)) = &mut self.out {
            out.write_all(bytes)?;
        }
        self.len += bytes.len() as u64;
        Ok(self.len - bytes.len() as u64)
    }

    /// Gives the file its name; its bytes in all and its path, if there is one.
    pub(crate) fn finish(self) -> std::io::Result<(u64, Option<PathBuf>)> {
        let Some((out, base)) = self.out else { return Ok((0, None)) };
        let file = out.into_inner().map_err(|error| error.into_error())?;
        file.as_file().sync_all()?;
        let path = with(base, VALUES);
        file.persist(&path).map_err(|error| error.error)?;
        Ok((self.len, Some(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(folder: &Path) -> (PathBuf, Stamp) {
        let path = folder.join("x.tar");
        std::fs::write(&path, b"content").unwrap();
        let stamp = stamp(&path.metadata().unwrap());
        (path, stamp)
    }

    #[test]
    fn an_index_lies_beside_its_shard_and_that_of_a_link_in_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let (path, stamp) = shard(folder.path());
        let index = Index { notes: vec!["n".into()], ..Index::default() };
        let places = Places::new(&path, stamp, Some(cache.clone()));
        assert!(places.load().is_none());
        places.save(&index, None);
        let kept = folder.path().join("x.tar.diptych-index");
        assert!(kept.is_file() && !cache.exists());
        // As readable as other new files are.
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            assert_eq!(kept.metadata().unwrap().mode(), path.metadata().unwrap().mode());
        }
        assert_eq!(places.load().unwrap(), (index.clone(), None));
        // A shard that was changed is another.
        std::fs::write(&path, b"other content").unwrap();
        assert!(Places::new(&path, super::stamp(&path.metadata().unwrap()), None).load().is_none());

        #[cfg(unix)]
        {
            let link = folder.path().join("link.tar");
            std::os::unix::fs::symlink(&path, &link).unwrap();
            let places = Places::new(&link, stamp, Some(cache.clone()));
            places.save(&index, None);
            assert!(!folder.path().join("link.tar.diptych-index").exists());
            assert_eq!(std::fs::read_dir(cache.join("indexes")).unwrap().count(), 1);
            assert_eq!(places.load().unwrap().0, index);
        }
    }

    #[test]
    fn values_are_tied_to_their_shard_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (path, stamp) = shard(folder.path());
        let places = Places::new(&path, stamp, None);
        let mut values = Values::new(&places);
        assert_eq!((values.push(b"abc").unwrap(), values.push(b"de").unwrap()), (8, 11));
        let (unpacked, file) = values.finish().unwrap();
        let file = file.unwrap();
        assert_eq!((unpacked, &std::fs::read(&file).unwrap()[8..]), (13, &b"abcde"[..]));
        let index = Index { unpacked, ..Index::default() };
        places.save(&index, Some(&file));
        assert_eq!(places.load().unwrap(), (index, Some(file.clone())));
        let bytes = std::fs::read(&file).unwrap();
        for damaged in [&bytes[..12], &[&[0; 8], &bytes[8..]].concat()[..]] {
            std::fs::write(&file, damaged).unwrap();
            assert!(places.load().is_none());
        }
        // Nothing half-made is left behind.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
        assert!(Values::new(&Places { bases: Vec::new(), stamp }).push(b"x").is_err());
    }
}
