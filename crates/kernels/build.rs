//! Compiles every `.cu` below `src` for the feature `cuda`: machine code for compute capability 8.0 and 9.0, and PTX that the driver
//! compiles for others. Without the feature it does nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::sync::Mutex;
use std::time::SystemTime;
use std::{env, fs, thread};

/// File ending, architecture, what the compiler is asked for.
const TARGETS: [(&str, &str, &str); 3] = [
    ("sm_80.cubin", "arch=compute_80,code=sm_80", "--cubin"),
    ("sm_90.cubin", "arch=compute_90,code=sm_90", "--cubin"),
    ("ptx", "arch=compute_80,code=compute_80", "--ptx"),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for name in ["NVCC", "CUDA_HOME", "NVCC_CCBIN"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if let Err(message) = build() {
        eprintln!("{message}");
        exit(1)
    }
}

fn build() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: this program is for cargo to run")?);
    let mut files = Vec::new();
    find(Path::new("src"), &mut files).map_err(|e| format!("reading src: {e}"))?;
    files.sort();
    let newest = files.iter().filter(|path| !has_ending(path, "cu")).filter_map(|path| modified(path)).max();
    let sources: Vec<_> = files.iter().filter(|path| has_ending(path, "cu")).collect();
    let mut jobs = Vec::new();
    let mut modules = String::new();
    for source in sources {
        let name = source.file_stem().and_then(|name| name.to_str()).ok_or("a kernel's file name is not UTF-8")?;
        for (ending, arch, form) in TARGETS {
            let target = out.join(format!("{name}.{ending}"));
            let needed = [modified(source), newest].into_iter().flatten().max();
            if modified(&target).is_none_or(|made| needed.is_none_or(|needed| made <= needed)) {
                jobs.push((source.clone(), target, arch, form));
            }
        }
        modules += &format!(
            "pub(crate) static {}: Module = Module {{\n    name: {name:?},\n    \
             sm_80: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.sm_80.cubin\")),\n    \
             sm_90: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.sm_90.cubin\")),\n    \
             ptx: include_str!(concat!(env!(\"OUT_DIR\"), \"/{name}.ptx\")),\n}};\n",
            name.to_uppercase(),
        );
    }
    compile(&nvcc(), jobs)?;
    fs::write(out.join("modules.rs"), modules).map_err(|e| format!("writing modules.rs: {e}"))
}

/// The jobs, as many at a time as cargo says.
fn compile(nvcc: &Path, jobs: Vec<(PathBuf, PathBuf, &str, &str)>) -> Result<(), String> {
    let threads = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let (queue, failure) = (Mutex::new(jobs), Mutex::new(None));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((source, target, arch, form)) = queue.lock().ok().and_then(|mut queue| queue.pop()) {
                    if let Err(message) = compile_one(nvcc, &source, &target, arch, form) {
                        *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(message);
                        return;
                    }
                }
            });
        }
    });
    match failure.into_inner() {
        Ok(Some(message)) => Err(message),
        _ => Ok(()),
    }
}

fn compile_one(nvcc: &Path, source: &Path, target: &Path, arch: &str, form: &str) -> Result<(), String> {
    let half_made = target.with_extension("part");
    let output = Command::new(nvcc)
        .args([form, "-gencode", arch, "-O3", "-std=c++17", "-lineinfo", "-Werror", "all-warnings", "-o"])
        .args([&half_made, source])
        .output()
        .map_err(|e| {
            format!(
                "cannot start {}: {e}\nThe feature `cuda` needs a CUDA toolkit: `cargo xtask cuda-toolkit` brings one and \
                 prints the environment to build with; an installed one is found through NVCC, CUDA_HOME or the PATH.",
                nvcc.display()
            )
        })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} for {arch}:\n{text}", source.display()));
    }
    fs::rename(&half_made, target).map_err(|e| format!("writing {}: {e}", target.display()))
}

fn nvcc() -> PathBuf {
    let named = env::var_os("NVCC").map(PathBuf::from);
    named
        .or_else(|| env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc")))
        .unwrap_or_else(|| "nvcc".into())
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if ["cu", "cuh", "h"].iter().any(|ending| has_ending(&path, ending)) {
            files.push(path);
        }
    }
    Ok(())
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|e| e == ending)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|meta| meta.modified()).ok()
}
