//! The command line of Diptych.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    diptych::kernels::keep_freed_memory();
    cli::main()
}
