//! `cargo xtask cuda-toolkit`: what the feature `cuda` needs to be built, on a machine with or without a GPU.
//!
//! A CUDA toolkit that is installed is used as it is. Otherwise the five packages of it that a build needs come as wheels from the Python package
//! index, pinned, into the target folder; nothing needs the administrator. In both cases the program is linked to archives of our own
//! ([`archives`]) that open the driver and NVIDIA's libraries on the first call, so that **one binary starts everywhere**.

mod archives;
mod report;
mod wheels;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process;
pub(crate) use report::report;

/// The environment with which cargo builds the feature `cuda`.
#[derive(Debug)]
pub(crate) struct Toolkit {
    pub(crate) nvcc: PathBuf,
    pub(crate) variables: Vec<(&'static str, OsString)>,
}

/// What the wheels are, and what the compiler must at least be: 13.0 writes PTX that drivers from 580 on load.
const VERSION: [u32; 2] = [13, 0];

impl Toolkit {
    /// Sets the toolkit up where it is not yet, and says what it does while it does it.
    pub(crate) fn set_up() -> Result<Self> {
        if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) {
            bail!("the feature `cuda` is built on Linux on x86-64 only")
        }
        let metadata = process::metadata(&["--all-features"])?;
        let target = metadata["target_directory"].as_str().context("cargo metadata named no target folder")?;
        let folder = Path::new(target).join("cuda-toolkit");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let (nvcc, libraries) = match installed() {
            Some(home) => (home.join("bin/nvcc"), library_folder(&home)),
            None => {
                let home = wheels::install(&folder)?;
                (home.join("bin/nvcc"), home.join("lib"))
            }
        };
        let cudarc = source_of(&metadata, "cudarc")?;
        let home = archives::make(&folder, &cudarc, &libraries.join("libcudart_static.a"))?;
        let wrapper = folder.join("nvcc");
        write_program(&wrapper, include_str!("nvcc.sh"))?;
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let variables = vec![
            // Where cudarc's build script tells the linker to look.
            ("CUDA_HOME", home.into()),
            ("NVCC", wrapper.into()),
            ("DIPTYCH_NVCC", nvcc.clone().into()),
            // Candle's own kernels: PTX of 8.0, which the driver compiles for whatever card there is.
            ("CUDA_COMPUTE_CAP", "80".into()),
            ("CUDARC_CUDA_VERSION", format!("{}0{}0", VERSION[0], VERSION[1]).into()),
            ("CUDAFORGE_THREADS", threads.to_string().into()),
        ];
        Ok(Self { nvcc, variables })
    }

    /// Gives a command this environment.
    pub(crate) fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs(self.variables.iter().map(|(name, value)| (name, value)))
    }
}

/// `cargo xtask cuda-toolkit`: sets it up, and prints what a shell needs to build with it.
pub(crate) fn toolkit() -> Result<()> {
    let toolkit = Toolkit::set_up()?;
    eprintln!("the compiler is {}", toolkit.nvcc.display());
    eprintln!(
        "to build by hand, in a shell: eval \"$(cargo xtask cuda-toolkit)\"; cargo build --release --features cuda"
    );
    for (name, value) in &toolkit.variables {
        println!("export {name}='{}'", value.to_string_lossy().replace('\'', r"'\''"));
    }
    Ok(())
}

/// A toolkit that is installed and new enough: of CUDA_HOME or CUDA_PATH, of the PATH, or in the usual place.
fn installed() -> Option<PathBuf> {
    let named = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).filter(|p| p.ends_with("bin")).filter_map(|p| Some(p.parent()?.into()));
    let usual = [PathBuf::from("/usr/local/cuda")];
    named.chain(on_path).chain(usual).find(|home| {
        let text = Command::new(home.join("bin/nvcc")).arg("--version").output();
        let version = text.ok().and_then(|output| release(&String::from_utf8_lossy(&output.stdout)));
        version == Some(VERSION) && library_folder(home).join("libcudart_static.a").is_file()
    })
}

/// The version in `nvcc --version`'s words: "release 13.0, V13.0.88".
fn release(text: &str) -> Option<[u32; 2]> {
    let number = text.split("release ").nth(1)?.split(',').next()?;
    let (major, minor) = number.trim().split_once('.')?;
    Some([major.parse().ok()?, minor.parse().ok()?])
}

fn library_folder(home: &Path) -> PathBuf {
    let wide = home.join("lib64");
    if wide.is_dir() { wide } else { home.join("lib") }
}

/// The folder of a dependency's source.
fn source_of(metadata: &Value, name: &str) -> Result<PathBuf> {
    let packages = metadata["packages"].as_array().context("cargo metadata named no packages")?;
    let package = packages.iter().find(|package| package["name"] == name);
    let manifest = package.and_then(|package| package["manifest_path"].as_str());
    let manifest = manifest.with_context(|| format!("the workspace does not depend on {name}"))?;
    Ok(Path::new(manifest).parent().unwrap_or(Path::new(".")).to_path_buf())
}

/// Writes a file that can be started; leaves one with this text alone, so that builds that depend on it need not run again.
fn write_program(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_version_is_read_from_its_words() {
        let text = "Cuda compilation tools, release 13.0, V13.0.88\nBuild cuda_13.0";
        assert_eq!(release(text), Some([13, 0]));
        assert_eq!(release("no such thing"), None);
    }

    #[test]
    fn a_dependency_is_found_by_its_name() {
        let metadata = serde_json::json!({ "packages": [{ "name": "a", "manifest_path": "x/a/Cargo.toml" }] });
        assert_eq!(source_of(&metadata, "a").unwrap(), Path::new("x/a"));
        assert!(source_of(&metadata, "b").unwrap_err().to_string().contains("depend on b"));
    }
}
