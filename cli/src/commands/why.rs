//! `slipway why`.

use std::process::ExitCode;

use client::public::Client;

use super::find::find;
use crate::exit::CliError;
use crate::output::print;

pub(crate) async fn run(client: &Client, build: &str, json: bool) -> Result<ExitCode, CliError> {
    let view = client.why(find(client, build).await?).await?;
    if json {
        let text = serde_json::to_string_pretty(&view)
            .map_err(|error| CliError::usage(error.to_string()))?;
        print(&text);
        return Ok(ExitCode::SUCCESS);
    }
    if view.stages.is_empty() {
        print("nothing ran: every step was found in the cache");
    }
    for stage in &view.stages {
        let before = match stage.compared_with {
            Some(build) => format!("compared with build {build}"),
            None => "the first build of it".to_owned(),
        };
        print(&format!("{}  ({before})", stage.label));
        for step in &stage.steps {
            print(&format!("  {:>2} {}", step.number, step.display));
            for reason in &step.reasons {
                print(&format!("       {reason}"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
