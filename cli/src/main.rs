//! `slipway`: builds Dockerfiles on a farm.

mod agent;
mod args;
mod bake;
mod commands;
mod context;
mod exit;
mod layout;
mod output;
mod up;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = args::Arguments::parse();
    let result = match &arguments.command {
        // A worker makes namespaces, so it has to be the only thread.
        args::Command::Worker { config } => up::work(config),
        _ => run(arguments),
    };
    result.unwrap_or_else(|error| exit::report(&error))
}

#[tokio::main]
async fn run(arguments: args::Arguments) -> Result<ExitCode, exit::CliError> {
    commands::run(arguments).await
}
