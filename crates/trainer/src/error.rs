//! Errors that the user can mend.

use std::fmt::Display;

/// Bad input: what is wrong, where, and what to do, in one sentence. The command line ends with code 2 on it.
#[derive(Debug, Clone)]
pub struct BadInput(pub String);

impl Display for BadInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadInput {}

/// Turns whatever went wrong into [`BadInput`], where the cause can only be what the user gave.
pub trait OrBadInput<T> {
    /// Maps the error, keeping its words.
    ///
    /// # Errors
    /// [`BadInput`] for any error.
    fn or_bad_input(self) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrBadInput<T> for Result<T, E> {
    fn or_bad_input(self) -> anyhow::Result<T> {
        self.map_err(|error| BadInput(format!("{:#}", error.into())).into())
    }
}

/// Returns [`BadInput`] with a formatted sentence.
macro_rules! bad_input {
    ($($sentence:tt)*) => { return Err($crate::BadInput(format!($($sentence)*)).into()) };
}
pub(crate) use bad_input;
