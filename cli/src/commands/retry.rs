//! `slipway retry`.

use std::process::ExitCode;

use client::public::Client;
use tokio::sync::mpsc;

use super::build::{follow, progress, receive};
use super::find::find;
use crate::args::Progress;
use crate::exit::CliError;
use crate::output::Display;

/// Runs what failed again, and waits for the end. Files that the build made stay at the farm: where
/// they were to go is not kept.
pub(crate) async fn run(
    client: &Client,
    build: &str,
    wanted: Progress,
) -> Result<ExitCode, CliError> {
    let id = find(client, build).await?;
    let view = client.retry(id).await?;
    let wanted = progress(wanted);
    let mut display = Display::new(wanted);
    display.submitted(&view);
    // No agents: a build that came with some is not run again.
    let (_notes, mut noted) = mpsc::channel(1);
    let view = follow(client, id, &mut display, &mut noted).await?;
    receive(client, &view, &[], wanted).await?;
    Ok(ExitCode::SUCCESS)
}
