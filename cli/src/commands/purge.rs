//! `slipway purge`.

use std::process::ExitCode;

use client::public::Client;

use super::find::find;
use crate::exit::CliError;
use crate::output::{bytes, print};

pub(crate) async fn run(client: &Client, build: &str) -> Result<ExitCode, CliError> {
    let id = find(client, build).await?;
    let purged = client.purge(id).await?;
    print(&format!(
        "{id}: the cache has forgotten {} steps and slices; {} objects ({}) go within {} minutes",
        purged.records,
        purged.objects,
        bytes(purged.bytes),
        purged.within_seconds.div_ceil(60),
    ));
    if purged.waiting > 0 {
        print(&format!("{} of them go when builds have ended that may read them", purged.waiting));
    }
    for kept in &purged.kept {
        print(&format!("stays, others have the same bytes: {} {}", kept.kind, kept.digest));
    }
    Ok(ExitCode::SUCCESS)
}
