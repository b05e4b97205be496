//! `make bench`: the same builds with Slipway, BuildKit and buildah, in turn, in one run.
//! `make bench-farm`: what several workers are worth, and what a coordinator can bear.
//!
//! Arguments: `farm` for the second one; names of rows (default: all) and `--runs N` (default 5).
//! With all rows the table goes into `bench/README.md`; with some it is only printed.

mod builders;
mod content;
mod farm;
mod machine;
mod table;
mod workloads;

use anyhow::Context as _;

/// Runs of each row whose median counts.
const RUNS: usize = 5;

fn main() -> anyhow::Result<()> {
    let mut runs = RUNS;
    let mut names = Vec::new();
    let mut of_farm = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--runs" => runs = arguments.next().context("--runs takes a number")?.parse()?,
            "farm" => of_farm = true,
            _ => names.push(argument),
        }
    }
    if of_farm { farm::run(&names, runs) } else { machine::run(&names, runs) }
}
