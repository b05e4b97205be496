//! `slipway-worker`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use worker::Config;
use worker::config::SECTIONS;

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
        Command::Run(config) => Ok(worker::program(config.load()?)?),
    }
}
