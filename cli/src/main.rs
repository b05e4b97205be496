//! `slipway`: builds Dockerfiles on a farm.

mod args;
mod commands;
mod context;
mod exit;
mod output;

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = args::Arguments::parse();
    match commands::run(arguments).await {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}
