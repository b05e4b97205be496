//! Choosing the command.

use std::process::ExitCode;

use client::public::Client;

use super::{build, builds, cancel, logs, show, workers};
use crate::args::{Arguments, Command};
use crate::exit::CliError;

/// Runs a command.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, CliError> {
    let client = Client::new(&arguments.server.server, arguments.server.token.as_deref());
    match arguments.command {
        Command::Build(arguments) => build::run(&client, &arguments).await,
        Command::Show { build, json } => show::run(&client, &build, json).await,
        Command::Logs { build, follow, stage } => {
            logs::run(&client, &build, follow, stage.as_deref()).await
        }
        Command::Cancel { build } => cancel::run(&client, &build).await,
        Command::Builds => builds::run(&client).await,
        Command::Workers => workers::run(&client).await,
    }
}
