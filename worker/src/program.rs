//! The worker as a program: the same one in three roles, see [`supervise`].

use std::process::ExitCode;
use std::time::Duration;

use service::lifecycle::Lifecycle;

use crate::boot::{BootError, run};
use crate::config::Config;
use crate::runtime::rootless;
use crate::runtime::supervise::{self, Role};

/// Works until told to stop by a signal. Call it before any thread is started: the program starts
/// itself again, with the same arguments, as the first process of namespaces of its own.
pub fn program(config: Config) -> Result<ExitCode, BootError> {
    service::telemetry::init(&config.log);
    if rootless::is_needed() {
        let missing = rootless::missing();
        if !missing.is_empty() {
            let list: Vec<String> = missing
                .iter()
                .map(|missing| format!("{} ({})", missing.problem, missing.fix))
                .collect();
            return Err(BootError::Rootless(list.join("; ")));
        }
    }
    in_namespaces(|supervision| {
        if let Err(error) = supervision {
            tracing::warn!(
                %error,
                "cannot make namespaces: a killed worker may leave containers behind"
            );
        }
        work(config)
    })
}

/// Does `work` as the only child of the first process of new namespaces: the program is started
/// again, twice, with the same arguments, and has to come here again. Where namespaces cannot be
/// made, `work` is done right here and told why.
pub fn in_namespaces(
    work: impl FnOnce(std::io::Result<()>) -> Result<ExitCode, BootError>,
) -> Result<ExitCode, BootError> {
    match Role::current() {
        Role::Worker => work(Ok(())),
        Role::Init => Ok(supervise::init()?),
        Role::Supervisor if rootless::is_needed() => {
            Err(BootError::Rootless(rootless::enter().to_string()))
        }
        Role::Supervisor => match supervise::supervise() {
            Ok(code) => Ok(code),
            Err(error) => work(Err(error)),
        },
    }
}

#[tokio::main]
async fn work(config: Config) -> Result<ExitCode, BootError> {
    let lifecycle = Lifecycle::new();
    lifecycle.listen_to_signals()?;
    let grace = Duration::from_secs(config.worker.drain_secs + 10);
    let runner = lifecycle.clone();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    lifecycle.spawn_essential("worker", async move {
        let _ = sender.send(run(config, &runner).await);
    });
    lifecycle.run_until_stopped(grace).await;
    match receiver.await {
        Ok(Err(error)) => Err(error),
        _ => Ok(ExitCode::SUCCESS),
    }
}
