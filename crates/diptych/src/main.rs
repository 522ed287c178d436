//! The command line of Diptych.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
