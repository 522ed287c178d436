//! `cargo xtask emulator`: the stand-ins of tests/emulator for a GPU's driver and libraries, with all kernels compiled for the CPU.
//!
//! A program built with the feature `cuda` that is started with their folder in `LD_LIBRARY_PATH` finds a device, on which every kernel and every launch is
//! really executed, and checked more strictly than a GPU would. Only what changed is compiled again.

mod kernels;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::SystemTime;
use std::{env, fs, thread};

use anyhow::{Context, Result, bail};

use crate::process::{self, root};

/// Where the emulator's sources are.
const HOME: &str = "tests/emulator";

/// Compilers at a time: each takes a few hundred megabytes.
const JOBS: usize = 2;

const USUAL: &[&str] = &["-std=c++17", "-g1", "-march=native", "-fPIC", "-pthread", "-Wall", "-Wextra", "-Werror"];

/// Sums in any order, as a GPU's libraries have them, but NaNs and infinities as they are.
const NUMBERS: &[&str] = &[
    "-O3",
    "-fassociative-math",
    "-fno-signed-zeros",
    "-fno-trapping-math",
    "-fno-math-errno",
    "-Wno-unknown-pragmas",
];

/// What all others are linked with, and so the first to be built.
const DRIVER: &str = "libcuda.so.1";

/// A stand-in: file name, folders or files of its source.
const LIBRARIES: [(&str, &[&str], &[&str]); 4] = [
    (DRIVER, &["core", "driver"], &["-O2", "-Wno-unknown-pragmas"]),
    ("libcublas.so.13", &["libraries/blas.cpp"], NUMBERS),
    ("libcurand.so.10", &["libraries/rand.cpp"], NUMBERS),
    ("libcudnn.so.9", &["libraries/dnn.cpp", "libraries/convolution.cpp"], NUMBERS),
];

/// Builds what is new, and returns the folder for `LD_LIBRARY_PATH`.
pub(crate) fn build() -> Result<PathBuf> {
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) {
        bail!("the emulator runs on Linux on x86-64 only")
    }
    let compiler = compiler()?;
    let metadata = process::metadata(&["--all-features"])?;
    let target = metadata["target_directory"].as_str().context("cargo metadata named no target folder")?;
    let out = Path::new(target).join("emulator");
    fs::create_dir_all(out.join("kernels")).with_context(|| format!("cannot make {}", out.display()))?;
    let home = root().join(HOME);
    let headers = newest(&files(&home, &["h", "limits"])?);

    let mut jobs = Vec::new();
    for (name, parts, flags) in LIBRARIES {
        let mut sources = Vec::new();
        for part in parts {
            let part = home.join(part);
            if part.is_dir() { sources.extend(files(&part, &["cpp"])?) } else { sources.push(part) }
        }
        let inputs = newest(&sources).max(headers);
        let driver = (name != DRIVER).then(|| out.join(DRIVER));
        jobs.push(Job { output: out.join(name), inputs, work: Work::Library { sources, flags, driver } });
        if name == DRIVER {
            run(&compiler, std::mem::take(&mut jobs))?;
        }
    }
    run(&compiler, jobs)?;

    let sources = kernels::sources(&metadata)?;
    kernels::remove_others(&out.join("kernels"), &sources)?;
    let jobs = sources.into_iter().map(|source| {
        let output = out.join("kernels").join(format!("{}.so", source.name));
        Job { output, inputs: source.newest.max(headers), work: Work::Kernels { source, driver: out.join(DRIVER) } }
    });
    run(&compiler, jobs.collect())?;
    Ok(out)
}

/// The emulator's own test, as a program: right kernels, and mistakes that it must find.
pub(crate) fn self_test(folder: &Path) -> Result<PathBuf> {
    let home = root().join(HOME);
    let program = folder.join("self_test");
    let mut sources = files(&home.join("core"), &["cpp"])?;
    sources.push(home.join("self_test.cpp"));
    if newest(&sources).max(newest(&files(&home, &["h"])?)) >= modified(&program) {
        let mut command = Command::new(compiler()?);
        command.args(USUAL).args(["-O1", "-Wno-unknown-pragmas", "-fno-strict-aliasing", "-DDIPTYCH_EMULATOR"]);
        command.args([kernels::CHECKS, "-rdynamic", "-I"]).arg(&home).args(&sources);
        check(command.args(["-ldl", "-o"]).arg(&program))?;
    }
    Ok(program)
}

/// Something to compile.
struct Job {
    output: PathBuf,
    /// When the last of what it is made of was changed.
    inputs: Option<SystemTime>,
    work: Work,
}

enum Work {
    Library { sources: Vec<PathBuf>, flags: &'static [&'static str], driver: Option<PathBuf> },
    Kernels { source: kernels::Source, driver: PathBuf },
}

/// Does the jobs whose outputs are older than what they are made of.
fn run(compiler: &Path, jobs: Vec<Job>) -> Result<()> {
    let old = |job: &Job| modified(&job.output).is_none_or(|made| job.inputs.is_none_or(|inputs| made <= inputs));
    let queue: Vec<Job> = jobs.into_iter().filter(old).collect();
    if queue.is_empty() {
        return Ok(());
    }
    eprintln!("compiling {} of the emulator's libraries ...", queue.len());
    let (queue, failure) = (Mutex::new(queue), Mutex::new(None));
    thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                while let Some(job) = queue.lock().ok().and_then(|mut queue| queue.pop()) {
                    if let Err(error) = job.run(compiler) {
                        *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
                        return;
                    }
                }
            });
        }
    });
    failure.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
}

impl Job {
    fn run(&self, compiler: &Path) -> Result<()> {
        // Whoever uses the old library at this moment keeps it.
        let part = self.output.with_extension(format!("part{}", std::process::id()));
        match &self.work {
            Work::Library { sources, flags, driver } => {
                let name = self.output.file_name().unwrap_or_default().to_string_lossy();
                let mut command = Command::new(compiler);
                command.args(USUAL).args(*flags).args(["-shared", "-Wl,-z,defs", "-Wl,-Bsymbolic"]);
                command.arg(format!("-Wl,-soname,{name}")).arg("-I").arg(root().join(HOME));
                check(command.args(sources).args(driver).args(["-ldl", "-Wl,-rpath,$ORIGIN", "-o"]).arg(&part))?;
            }
            Work::Kernels { source, driver } => kernels::compile(compiler, source, driver, &part)?,
        }
        fs::rename(&part, &self.output).with_context(|| format!("cannot write {}", self.output.display()))
    }
}

/// Runs a compiler; what it says is shown where it fails.
fn check(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !output.status.success() {
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        bail!("{}\n{} {}", String::from_utf8_lossy(&output.stderr), command.get_program().display(), words.join(" "))
    }
    Ok(output.stdout)
}

/// g++ (12 or later), or what `CXX` names.
fn compiler() -> Result<PathBuf> {
    let name = env::var_os("CXX").unwrap_or_else(|| OsString::from("g++"));
    let works = Command::new(&name).arg("-dumpfullversion").output().is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success()
            && text.split('.').next().and_then(|major| major.trim().parse().ok()).is_some_and(is_new)
    });
    if !works {
        bail!(
            "the emulator is compiled by g++ 12 or later, and {} is none; install it (Debian: apt-get install g++) or name one \
             with CXX",
            name.display()
        )
    }
    Ok(name.into())
}

fn is_new(major: u32) -> bool {
    major >= 12
}

/// All files below a folder whose names end so, sorted.
fn files(folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, endings)?);
        } else if endings.iter().any(|ending| path.extension().or(path.file_name()).is_some_and(|e| e == *ending)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn newest(files: &[PathBuf]) -> Option<SystemTime> {
    files.iter().filter_map(|path| modified(path)).max()
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_of_a_library_is_there() {
        let home = root().join(HOME);
        for (name, parts, _) in LIBRARIES {
            assert!(parts.iter().all(|part| home.join(part).exists()), "{name}");
        }
        assert!(files(&home, &["limits"]).unwrap().len() == 1);
    }

    #[test]
    fn only_old_libraries_are_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("made");
        fs::write(&output, "").unwrap();
        let job = |inputs| {
            let work = Work::Library { sources: Vec::new(), flags: &[], driver: None };
            vec![Job { output: output.clone(), inputs, work }]
        };
        let nobody = Path::new("/no/compiler");
        assert!(run(nobody, job(Some(SystemTime::UNIX_EPOCH))).is_ok());
        assert!(run(nobody, job(None)).unwrap_err().to_string().contains("cannot start"));
    }
}
