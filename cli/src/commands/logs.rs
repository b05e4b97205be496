//! `slipway logs`.

use std::process::ExitCode;

use client::public::Client;
use tokio::sync::mpsc;

use super::find::find;
use crate::exit::CliError;
use crate::output::print;

pub(crate) async fn run(
    client: &Client,
    build: &str,
    follow: bool,
    stage: Option<&str>,
) -> Result<ExitCode, CliError> {
    let id = find(client, build).await?;
    let view = client.build(id).await?;
    let label = |stage| {
        let found = view.stages.iter().find(|view| view.id == stage);
        found.map_or("?", |view| view.label.as_str()).to_owned()
    };
    let only = match stage {
        Some(name) => {
            let found = view.stages.iter().find(|stage| stage.label == name);
            Some(
                found
                    .ok_or_else(|| CliError::usage(format!("the build has no stage {name:?}")))?
                    .id,
            )
        }
        None => None,
    };
    let (sender, mut receiver) = mpsc::channel(256);
    let reader = {
        let client = client.clone();
        tokio::spawn(async move { client.log(id, only, follow, sender).await })
    };
    while let Some(line) = receiver.recv().await {
        print(&format!("[{} {}] {}", label(line.stage), line.step, line.text));
    }
    reader.await.map_err(|error| CliError::usage(error.to_string()))??;
    Ok(ExitCode::SUCCESS)
}
