//! `cargo xtask COMMAND`: the door for users and developers.
//!
//! User commands (`train`, `eval`, ...) are handed to the release binary, built first where needed; the others are
//! the project's habits. This program stays thin: whatever has a tensor in it lives in `crates/`.

mod binary;
mod built;
mod checks;
mod cuda;
mod emulate;
mod emulator;
mod gpu_pack;
mod guide;
mod markdown;
mod process;
mod tidy;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Commands that the `diptych` binary has, with the line that `cargo xtask --help` shows.
const USER_COMMANDS: &[(&str, &str)] = &[
    ("train", "Pretrain a backbone on a folder of images (or on the built-in drawn data set)"),
    ("sweep", "Make many runs that differ in a few keys of a recipe, one table and one picture"),
    ("eval", "Evaluate a backbone: knn, linear, logistic, finetune, transfer, cluster"),
    ("embed", "Write the features of images to a file"),
    ("export", "Write a backbone for torchvision, timm, Detectron2 or ONNX, with a card that describes it"),
    ("import", "Read a backbone out of another project's checkpoint"),
    ("preview", "Make a picture of the views that a recipe makes, or of each operation (--ops)"),
    ("stats", "Say what a data set's images are: channels, sizes, mean and deviation"),
    ("pack", "Put the images of a data set into one file that is fast to train from"),
    ("doctor", "Say what this machine and this build can do, and why not more"),
    ("draw", "Write the built-in data set out as image files"),
    ("bench", "Time ops, losses, optim or step side by side with PyTorch (a binary of its own)"),
];

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Diptych: use it, test it, check it", after_help = user_help())]
struct Cli {
    #[command(subcommand)]
    command: Habit,
}

#[derive(Subcommand)]
enum Habit {
    /// Build the binary, then run all tests
    Test {
        /// Passed to `cargo test --workspace`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Everything that continuous integration runs
    Validate {
        /// Leave a step out: test, fmt, clippy, doc, guide, tidy, package or cuda
        #[arg(long, value_name = "STEP", value_parser = clap::builder::PossibleValuesParser::new(checks::STEPS))]
        skip: Vec<String>,
    },
    /// Build the stand-in for a GPU that runs kernels on the CPU, and print the folder for LD_LIBRARY_PATH
    Emulator,
    /// The house rules: layers, input and output, file heads, links
    Tidy,
    /// Make the fixtures of the tests again (needs Python with torch, torchvision and Pillow)
    Fixtures {
        /// Python to use; otherwise .venv/bin/python, or python3
        #[arg(long)]
        python: Option<OsString>,
        /// Only scripts whose name contains this
        filter: Option<String>,
    },
    /// Bring what the feature `cuda` needs to be built, and print the environment to build it with
    CudaToolkit,
    /// Write registers, shared memory and spills of every CUDA kernel into docs/kernels.md
    CudaReport {
        /// Compare with what is written, and change nothing
        #[arg(long)]
        check: bool,
    },
    /// Run the tests of the CUDA side on an emulated GPU
    Emulate {
        /// Only tests with this in their names
        filter: Option<String>,
    },
    /// Pack everything that is to be seen on a GPU into one folder, for a machine without Rust
    GpuPack {
        /// The folder, made anew
        #[arg(long, value_name = "DIR", default_value = "target/gpu-pack")]
        out: std::path::PathBuf,
    },
    /// Build the user's guide from docs/ as a book, and check every link in it
    Guide,
    /// Build the documentation of all crates
    Docs {
        /// Passed to `cargo doc`, such as --open
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn user_help() -> String {
    let mut text = String::from("Handed to the diptych binary (built first, in release mode):\n");
    for (name, about) in USER_COMMANDS {
        text.push_str(&format!("  {name:<9} {about}\n"));
    }
    text
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    // User commands go past clap, so that every argument reaches the binary as it was typed.
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let first = args.first().and_then(|arg| arg.to_str());
    if USER_COMMANDS.iter().any(|(name, _)| first == Some(name)) {
        return binary::hand_over(&args);
    }
    let done = match Cli::parse().command {
        Habit::Test { args } => checks::test(&args),
        Habit::Validate { skip } => checks::validate(&skip),
        Habit::Emulator => emulator::build().map(|folder| println!("{}", folder.display())),
        Habit::Tidy => tidy::run(),
        Habit::Fixtures { python, filter } => checks::fixtures(python, filter.as_deref()),
        Habit::CudaToolkit => cuda::toolkit(),
        Habit::CudaReport { check } => cuda::report(check),
        Habit::Emulate { filter } => emulate::emulate(filter.as_deref()),
        Habit::GpuPack { out } => gpu_pack::pack(&out),
        Habit::Guide => guide::build(),
        Habit::Docs { args } => checks::docs(&args),
    };
    done.map(|()| ExitCode::SUCCESS)
}
