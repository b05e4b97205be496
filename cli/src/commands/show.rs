//! `slipway show`.

use std::process::ExitCode;

use client::public::Client;

use super::find::find;
use crate::exit::{CliError, failure_text};
use crate::output::{print, table};

pub(crate) async fn run(client: &Client, build: &str, json: bool) -> Result<ExitCode, CliError> {
    let id = find(client, build).await?;
    let view = client.build(id).await?;
    if json {
        let text = serde_json::to_string_pretty(&view)
            .map_err(|error| CliError::usage(error.to_string()))?;
        print(&text);
        return Ok(ExitCode::SUCCESS);
    }
    print(&format!("build {}  {}  {}", view.id, view.state, view.dockerfile));
    print(&table(&view));
    for export in &view.exports {
        print(&format!("{} {} {}", export.kind, export.digest, export.names.join(" ")));
    }
    if let Some(failure) = &view.failure {
        print(&failure_text(failure));
    }
    Ok(ExitCode::SUCCESS)
}
