//! `slipway cancel`.

use std::process::ExitCode;

use client::public::Client;

use super::find::find;
use crate::exit::CliError;
use crate::output::print;

pub(crate) async fn run(client: &Client, build: &str) -> Result<ExitCode, CliError> {
    let id = find(client, build).await?;
    let view = client.cancel(id).await?;
    print(&format!("{} is {}", view.id, view.state));
    Ok(ExitCode::SUCCESS)
}
