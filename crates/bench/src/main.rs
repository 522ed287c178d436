//! Diptych against another program, case by case: `cargo xtask bench SUITE --peer torch`.
//!
//! A case is timed only after its outputs and gradients equal the peer's. Then ours and every variant of the peer take turns,
//! at least seven times, in one call: what disturbs the machine disturbs both. Ratios are medians over the rounds.
#![doc = include_str!("../README.md")]

mod bars;
mod case;
mod cli;
mod compare;
mod contestant;
mod dictionary;
mod input;
mod machine;
mod measure;
mod memory;
mod method;
mod peer;
mod report;
mod session;
mod setting;
mod suites;
#[cfg(test)]
mod tests;
mod weights;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: diptych_kernels::CountingAllocator = diptych_kernels::CountingAllocator;

fn main() -> ExitCode {
    // As the diptych binary does.
    diptych_kernels::keep_freed_memory();
    cli::main()
}
