//! The headers of a tar file, one after another, by positional reads: bodies are passed over.
//!
//! Understood are ustar's prefix, GNU's long names and large sizes, and pax's `path` and `size`. Nothing is believed before it
//! was held to the file's size, and nothing that a header asks for is kept in memory beyond [`MAX_TEXT`].

use std::fs::File;
use std::path::Path;

use crate::DataError;
use crate::list::display;
use crate::source::read_at;

const BLOCK: u64 = 512;
/// The most bytes of a long name or of a pax header.
const MAX_TEXT: u64 = 1 << 20;
/// The most bytes of a name.
const MAX_NAME: usize = 4096;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    File,
    /// A hard or symbolic link.
    Link,
    Folder,
    /// A file with holes, which is not stored in one piece.
    Sparse,
    /// Devices, pipes, and what is not known.
    Other,
}

/// One member.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: Vec<u8>,
    pub(super) what: What,
    /// Where its bytes begin.
    pub(super) at: u64,
    pub(super) size: u64,
}

/// The members of a tar file, in its order.
pub(super) struct Headers<'a> {
    path: &'a Path,
    file: &'a File,
    size: u64,
    at: u64,
    /// The last member's name, to say where the file is damaged.
    last: Vec<u8>,
}

impl<'a> Headers<'a> {
    pub(super) fn new(path: &'a Path, file: &'a File, size: u64) -> Self {
        Self { path, file, size, at: 0, last: Vec::new() }
    }

    fn problem(&self, problem: impl std::fmt::Display) -> DataError {
        let after = match self.last.as_slice() {
            [] => String::new(),
            name => format!(", after the member {}", display(name)),
        };
        DataError::format(self.path, format!("{problem} (at byte {}{after}): get or make the file again", self.at))
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<(), DataError> {
        read_at(self.file, at, buffer).map_err(|source| DataError::io("read", self.path, source))
    }

    /// The next member; `None` at the end.
    ///
    /// # Errors
    /// If the file ends in the middle of a header or member, or what should be a header is none.
    pub(super) fn next(&mut self) -> Result<Option<Member>, DataError> {
        let mut long_name = None;
        let mut pax = Pax::default();
        loop {
            if self.at == self.size {
                return Ok(None);
            }
            if self.size - self.at < BLOCK {
                return Err(self.problem("the tar file ends in the middle of a header"));
            }
            let mut header = tar::Header::new_old();
            self.read(self.at, header.as_mut_bytes())?;
            if header.as_bytes().iter().all(|&byte| byte == 0) {
                return Ok(None);
            }
            if !sum_is_right(&header) {
                return Err(self.no_header(header.as_bytes()));
            }
            let kind = header.as_old().linkflag[0];
            let own_size = header.entry_size().map_err(|_| self.problem("a header has no readable size"))?;
            let body = self.at + BLOCK;
            if let b'L' | b'K' | b'x' | b'g' = kind {
                if own_size > MAX_TEXT {
                    return Err(self.problem(format_args!("a long name or pax header has {own_size} bytes")));
                }
                if own_size > self.size - body {
                    return Err(self.problem("the tar file ends in the middle of a long name or pax header"));
                }
                let mut text = vec![0; own_size as usize];
                self.read(body, &mut text)?;
                match kind {
                    b'L' => {
                        let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
                        text.truncate(end);
                        long_name = Some(text);
                    }
                    b'x' => pax = Pax::parse(&text).ok_or_else(|| self.problem("a pax header is damaged"))?,
                    // Long names of links, and what holds for all members (never a name or a size), don't matter here.
                    _ => {}
                }
                self.at = self.after(body, own_size);
                continue;
            }
            let name = pax.path.or(long_name).unwrap_or_else(|| header.path_bytes().into_owned());
            if name.len() > MAX_NAME {
                return Err(self.problem(format_args!("a name has {} bytes, more than {MAX_NAME}", name.len())));
            }
            let what = match kind {
                b'0' | 0 | b'7' if pax.sparse => What::Sparse,
                // In the oldest format a folder is a file whose name ends in a slash.
                0 if name.ends_with(b"/") => What::Folder,
                b'0' | 0 | b'7' => What::File,
                b'1' | b'2' => What::Link,
                b'5' => What::Folder,
                b'S' => What::Sparse,
                _ => What::Other,
            };
            // Links, devices, folders and pipes have no bytes, whatever their size says.
            let size = if (b'1'..=b'6').contains(&kind) { 0 } else { pax.size.unwrap_or(own_size) };
            let at = if kind == b'S' { self.after_sparse_headers(&header, body)? } else { body };
            if size > self.size - at {
                return Err(DataError::format(
                    self.path,
                    format!(
                        "the member {} says it has {size} bytes, and the file has {} more: it is cut off or damaged; get or make it again",
                        display(&name),
                        self.size - at
                    ),
                ));
            }
            self.at = self.after(at, size);
            self.last.clone_from(&name);
            return Ok(Some(Member { name, what, at, size }));
        }
    }

    /// Where the next header is: bodies fill whole blocks, but the last one may be cut to its bytes.
    fn after(&self, at: u64, size: u64) -> u64 {
        (at + size.next_multiple_of(BLOCK)).min(self.size)
    }

    /// Passes the blocks in which GNU's sparse files go on with their maps.
    fn after_sparse_headers(&self, header: &tar::Header, mut at: u64) -> Result<u64, DataError> {
        let mut more = header.as_bytes()[482] != 0;
        while more {
            if self.size - at < BLOCK {
                return Err(self.problem("the tar file ends in the middle of a header"));
            }
            let mut block = [0; BLOCK as usize];
            self.read(at, &mut block)?;
            more = block[504] != 0;
            at += BLOCK;
        }
        Ok(at)
    }

    /// What to say of a block that is no header.
    fn no_header(&self, block: &[u8; 512]) -> DataError {
        if self.at > 0 {
            return self.problem("what should be a header is none");
        }
        let packed =
            [(&b"\x1f\x8b"[..], "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ", "xz"), (b"BZh", "bzip2")];
        let problem = match packed.iter().find(|(magic, _)| block.starts_with(magic)) {
            Some((_, tool)) => format!(
                "it is compressed, and no image in it can be found without unpacking all before: unpack it once ({tool} -d < {0} > NEW.tar) and give the .tar",
                crate::shards::file_name(self.path)
            ),
            None => "it is no tar file: its first 512 bytes are no header; expected what tar -cf makes".into(),
        };
        DataError::format(self.path, problem)
    }
}

/// Whether the sum of the header's bytes is the one that it says, with its own field taken for blanks.
fn sum_is_right(header: &tar::Header) -> bool {
    let bytes = header.as_bytes();
    let sum = |byte: fn(u8) -> i64| -> i64 {
        bytes.iter().enumerate().map(|(i, &b)| byte(if (148..156).contains(&i) { b' ' } else { b })).sum()
    };
    // Some old programs added signed bytes.
    header.cksum().is_ok_and(|said| {
        i64::from(said) == sum(|byte| byte.into()) || i64::from(said) == sum(|byte| (byte as i8).into())
    })
}

/// What a pax header changes.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl Pax {
    /// Lines of `LENGTH KEY=VALUE\n`, where the length counts the whole line.
    fn parse(mut text: &[u8]) -> Option<Self> {
        let mut pax = Self::default();
        while !text.is_empty() {
            let blank = text.iter().take(20).position(|&byte| byte == b' ')?;
            let length: usize = std::str::from_utf8(&text[..blank]).ok()?.parse().ok()?;
            let (line, rest) = text.split_at_checked(length)?;
            let line = line.get(blank + 1..)?.strip_suffix(b"\n")?;
            let equals = line.iter().position(|&byte| byte == b'=')?;
            let (key, value) = (&line[..equals], &line[equals + 1..]);
            match key {
                b"path" => pax.path = Some(value.to_vec()),
                b"size" => pax.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
                _ => pax.sparse |= key.starts_with(b"GNU.sparse."),
            }
            text = rest;
        }
        Some(pax)
    }
}
