//! `slipway-worker`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use service::lifecycle::Lifecycle;
use worker::Config;
use worker::config::SECTIONS;
use worker::runtime::supervise::{self, Role};

/// Runs stages, shares what they made, pushes images.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Work for a coordinator until told to stop.
    Run(ConfigArgument),
    /// Say what this host allows.
    Doctor(ConfigArgument),
}

#[derive(clap::Args)]
struct ConfigArgument {
    /// The configuration file; values can also be variables SLIPWAY_<SECTION>_<KEY>.
    #[arg(long, env = "SLIPWAY_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigArgument {
    fn load(&self) -> anyhow::Result<Config> {
        Ok(service::config::load(self.config.as_deref(), &SECTIONS, std::env::vars())?)
    }
}

fn main() -> anyhow::Result<ExitCode> {
    // Before any thread is started.
    let arguments = Arguments::parse();
    match arguments.command {
        Command::Doctor(config) => {
            let report = worker::doctor(&config.load()?);
            let is_good = !report.contains("FAIL");
            write!(std::io::stdout(), "{report}")?;
            Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Run(config) => {
            let config = config.load()?;
            service::telemetry::init(&config.log);
            match Role::current() {
                Role::Worker => work(config),
                Role::Init => Ok(supervise::init()?),
                Role::Supervisor => match supervise::supervise() {
                    Ok(code) => Ok(code),
                    Err(error) => {
                        tracing::warn!(
                            %error,
                            "cannot make namespaces: a killed worker may leave containers behind"
                        );
                        work(config)
                    }
                },
            }
        }
    }
}

#[tokio::main]
async fn work(config: Config) -> anyhow::Result<ExitCode> {
    let lifecycle = Lifecycle::new();
    lifecycle.listen_to_signals()?;
    let grace = Duration::from_secs(config.worker.drain_secs + 10);
    let runner = lifecycle.clone();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    lifecycle.spawn_essential("worker", async move {
        let _ = sender.send(worker::run(config, &runner).await);
    });
    lifecycle.run_until_stopped(grace).await;
    match receiver.await {
        Ok(Err(error)) => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
