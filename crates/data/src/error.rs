//! What can go wrong with data, as sentences that say which file, what was expected, and what to do.

use std::path::PathBuf;

/// An error of the data layer. Its text is meant for the user, whole and on one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Nothing lies at the path that was given.
    #[error(
        "data {} does not exist: give a folder of images, of .tar or .parquet files, or of CIFAR's or STL-10's binary files; or one such file, \
         hf://owner/name, or the word synthetic",
        path.display()
    )]
    Missing {
        /// The path as given.
        path: PathBuf,
    },
    /// The folder can be read but holds nothing to train on.
    #[error("data {}: no image found ({found}): expected files ending in {expected}", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
        /// What was there instead, such as `3 other files, 1 hidden`.
        found: String,
        /// The endings that count as images.
        expected: &'static str,
    },
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, an infinitive: `read`, `list`, `write`.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of a known data set format does not have that format.
    #[error("data file {}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, what was expected, what to do.
        problem: String,
    },
    /// One image could not be decoded; the loader replaces it and counts it.
    #[error("image {name}: {reason}")]
    Decode {
        /// The image's name in its data set (its path, lossily, for a file).
        name: String,
        /// Why it could not be decoded.
        reason: String,
    },
    /// Too many images could not be decoded.
    #[error(
        "{failed} of {total} images could not be read, more than the {:.1} % that data.max_error_share allows; the last: {last}: \
         mend or remove the files, or raise data.max_error_share",
        share * 100.0
    )]
    TooManyErrors {
        /// Distinct images that failed so far.
        failed: usize,
        /// Images in the data set.
        total: usize,
        /// The share that was allowed, in [0, 1].
        share: f64,
        /// The last failure, as a sentence.
        last: String,
    },
    /// What was asked does not fit the data or makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A loader thread panicked, or a tensor could not be made: an error in the program, not in the data.
    #[error("a data worker failed: {0}")]
    Worker(String),
}

impl DataError {
    /// An [`DataError::Io`] for `path`; `action` is an infinitive.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    /// A [`DataError::Format`] for `path`.
    pub(crate) fn format(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Format { path: path.into(), problem: problem.into() }
    }

    /// Whether this is about one image only, so that the loader may replace it and go on.
    pub fn is_about_one_image(&self) -> bool {
        matches!(self, Self::Decode { .. })
    }
}
