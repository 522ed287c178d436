//! SHA-256 of files, as published next to weights.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::HubError;

/// The SHA-256 of a file, as 64 lower-case hexadecimal digits.
///
/// # Errors
/// If the file cannot be read.
pub fn sha256(path: &Path) -> Result<String, HubError> {
    let unreadable = |source| HubError::Read { path: path.into(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(unreadable)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Checks a file against a published SHA-256; torchvision's 8-digit prefixes are fine too.
///
/// # Errors
/// If the file cannot be read, `expected` has fewer than 8 digits, or the sums differ.
pub fn verify(path: &Path, expected: &str) -> Result<(), HubError> {
    let found = sha256(path)?;
    if expected.len() >= 8 && found.starts_with(&expected.to_ascii_lowercase()) {
        return Ok(());
    }
    Err(HubError::Checksum { path: path.into(), found, expected: expected.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values: the test vectors of FIPS 180-4, and one that fills the buffer more than once (`sha256sum`).
    #[test]
    fn sums_equal_the_published_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (content, sum) in [
            (b"abc".to_vec(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (b"".to_vec(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (vec![b'a'; 1_000_000], "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(sha256(&path).unwrap(), sum);
            assert!(verify(&path, sum).is_ok() && verify(&path, &sum[..8].to_uppercase()).is_ok());
            assert!(verify(&path, &sum[1..]).is_err() && verify(&path, &sum[..4]).is_err());
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = sha256(Path::new("no/such/file")).unwrap_err();
        assert!(error.to_string().contains("no/such/file"), "{error}");
    }
}
