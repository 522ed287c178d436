//! Where golden tests run (the CPU, or `DIPTYCH_TEST_DEVICE`), and where their fixtures lie.

use std::path::PathBuf;

use candle_core::Device;

/// The device of the tests. One that is asked for and not there fails them.
pub(crate) fn device() -> Device {
    diptych_kernels::check::device().unwrap()
}

/// A file of `tests/fixtures`, or of the folder that `DIPTYCH_FIXTURES` names where the tests run without the source tree.
pub(crate) fn fixture_file(name: &str) -> PathBuf {
    let folder = std::env::var_os("DIPTYCH_FIXTURES").map(PathBuf::from);
    folder.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures")).join(name)
}
