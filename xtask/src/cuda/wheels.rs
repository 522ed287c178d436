//! The CUDA compiler and its headers from the Python package index, without root.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// What a build needs of the toolkit, and no more: compiler, its headers and optimizer, the runtime's headers, the C++ headers.
const WHEELS: [&str; 5] = [
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cccl==13.0.85",
];

/// The toolkit's home below `folder`, installed where it is not there yet.
pub(super) fn install(folder: &Path) -> Result<PathBuf> {
    let packages = folder.join("wheels");
    let home = packages.join("nvidia/cu13");
    let done = packages.join("complete");
    let wanted = WHEELS.join("\n");
    if std::fs::read_to_string(&done).is_ok_and(|text| text == wanted) {
        return Ok(home);
    }
    eprintln!("bringing the CUDA compiler (about 270 MB, {}) ...", WHEELS[0].replace("==", " "));
    let python = pip(folder)?;
    let mut command = Command::new(&python);
    command.args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-cache-dir", "--upgrade", "--target"]);
    let status =
        command.arg(&packages).args(WHEELS).status().with_context(|| format!("cannot start {}", python.display()))?;
    if !status.success() {
        bail!("pip could not install {}; its messages are above", WHEELS.join(", "));
    }
    if !home.join("bin/nvcc").is_file() {
        bail!("the wheels hold no {}", home.join("bin/nvcc").display());
    }
    std::fs::write(&done, wanted).with_context(|| format!("cannot write {}", done.display()))?;
    Ok(home)
}

/// A Python that has pip: the machine's, or one of a virtual environment.
fn pip(folder: &Path) -> Result<PathBuf> {
    let has = |python: &Path| {
        Command::new(python).args(["-m", "pip", "--version"]).output().is_ok_and(|o| o.status.success())
    };
    let system = PathBuf::from("python3");
    if has(&system) {
        return Ok(system);
    }
    let environment = folder.join("venv");
    let own = environment.join("bin/python");
    if !has(&own) {
        let made = Command::new(&system).args(["-m", "venv"]).arg(&environment).output();
        if !made.is_ok_and(|output| output.status.success()) || !has(&own) {
            bail!(
                "there is no CUDA {}.{} toolkit here, and bringing one needs python3 with pip or venv (Debian: apt-get install \
                 python3-venv); or install the toolkit and set CUDA_HOME",
                super::VERSION[0],
                super::VERSION[1]
            );
        }
    }
    Ok(own)
}
