//! Starting a farm from another command.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::place::{Place, default_directory};
use crate::exit::CliError;

/// How long a farm may take to start.
const START_LIMIT: Duration = Duration::from_mins(2);

/// Asks, at a terminal, whether to start a farm here, and starts it. Elsewhere nothing is asked and
/// nothing is started.
pub(crate) async fn offer_to_start() -> Result<Option<Place>, CliError> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(None);
    }
    let _ = write!(std::io::stderr(), "no farm is running here; start one on this machine? [Y/n] ");
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    if !matches!(answer.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes") || answer.is_empty()
    {
        return Ok(None);
    }
    start().await.map(Some)
}

/// Starts `slipway up` so that it outlives this program, and waits until it works.
async fn start() -> Result<Place, CliError> {
    let directory = default_directory();
    let fail = |error: &dyn std::fmt::Display| CliError::file(&directory, error);
    std::fs::create_dir_all(&directory).map_err(|error| fail(&error))?;
    let path = directory.join("up.log");
    let log = std::fs::File::create(&path).map_err(|error| fail(&error))?;
    let mut command = Command::new(std::env::current_exe().map_err(|error| fail(&error))?);
    command.arg("up").stdin(Stdio::null()).process_group(0);
    command.stdout(log.try_clone().map_err(|error| fail(&error))?).stderr(log);
    let mut child = command.spawn().map_err(|error| fail(&error))?;
    let start = Instant::now();
    while start.elapsed() < START_LIMIT {
        if let Some(place) = Place::read(&directory) {
            let text = format!("started; to stop it: kill {}\n", child.id());
            let _ = write!(std::io::stderr(), "{text}");
            return Ok(place);
        }
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            let said = std::fs::read_to_string(&path).unwrap_or_default();
            return Err(CliError::Farm(format!("the farm did not start:\n{}", said.trim())));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(CliError::Farm(format!("the farm did not start in time; see {}", path.display())))
}
