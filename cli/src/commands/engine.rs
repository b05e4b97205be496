//! The Docker engine of this machine, by its own client.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::exit::CliError;

/// Longest time until an engine says that it is there.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Whether there is an engine: asked before anything is built for it.
pub(super) async fn check() -> Result<(), CliError> {
    let asked = docker(&["version", "--format", "{{.Server.Version}}"]);
    match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(answer) => answer.map(|_| ()),
        Err(_) => Err(no_engine(&format!("no answer in {} s", TIMEOUT.as_secs()))),
    }
}

/// Loads an archive.
pub(super) async fn load(archive: &Path) -> Result<(), CliError> {
    let path = archive.display().to_string();
    docker(&["load", "--quiet", "--input", &path]).await.map(|_| ())
}

async fn docker(arguments: &[&str]) -> Result<String, CliError> {
    let mut command = Command::new("docker");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| no_engine(&error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(no_engine(text.lines().last().unwrap_or("docker failed")))
}

fn no_engine(why: &str) -> CliError {
    CliError::Usage {
        message: format!("the image cannot be loaded into a Docker engine: {why}"),
        hint: Some("write it to a file with -o type=docker,dest=FILE, or push it".to_owned()),
    }
}
