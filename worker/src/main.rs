//! `slipway-worker`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use worker::config::SECTIONS;
use worker::doctor::examine;
use worker::runtime::rootless;
use worker::{BootError, Config, StoreAction};

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
    /// Say what this host allows, and how to get the rest. Fails if a worker cannot run here.
    Doctor {
        #[command(flatten)]
        config: ConfigArgument,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Look after what the worker keeps on disk, also while it runs.
    #[command(subcommand)]
    Store(StoreCommand),
}

#[derive(Subcommand)]
enum StoreCommand {
    /// Tell what takes how much space.
    Du {
        #[command(flatten)]
        config: ConfigArgument,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Evict what is beyond the limits and not in use.
    Gc {
        #[command(flatten)]
        config: ConfigArgument,
        /// Most bytes of all entries, instead of worker.store_max_bytes.
        #[arg(long, value_name = "N", conflicts_with = "all")]
        max_bytes: Option<u64>,
        /// Bytes of the disk that stay free, instead of worker.store_min_free_bytes.
        #[arg(long, value_name = "N", conflicts_with = "all")]
        min_free: Option<u64>,
        /// Everything that is not in use, and what was found damaged.
        #[arg(long)]
        all: bool,
    },
    /// Read everything, compare it, move aside what is damaged; exit code 1 if anything is.
    Verify {
        #[command(flatten)]
        config: ConfigArgument,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
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

    /// For looking only: nothing has to be configured yet.
    fn load_or_default(&self) -> anyhow::Result<Config> {
        match (self.load(), &self.config) {
            (Err(_), None) => Ok(Config::for_looking(std::env::temp_dir())),
            (loaded, _) => loaded,
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    // Before any thread is started.
    let arguments = Arguments::parse();
    match arguments.command {
        Command::Doctor { config, json } => doctor(&config.load_or_default()?, json),
        Command::Run(config) => Ok(worker::program(config.load()?)?),
        Command::Store(command) => store(command),
    }
}

/// Looks at the host from where a worker would.
fn doctor(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let print = |supervised| -> std::io::Result<ExitCode> {
        let report = examine(config, supervised);
        let text = if json {
            serde_json::to_string_pretty(&report).map_err(std::io::Error::other)? + "\n"
        } else {
            report.to_string()
        };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(if report.is_usable() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    };
    if rootless::is_needed() && !rootless::missing().is_empty() {
        return Ok(print(false)?);
    }
    Ok(worker::in_namespaces(|supervision| print(supervision.is_ok()).map_err(BootError::Content))?)
}

fn store(command: StoreCommand) -> anyhow::Result<ExitCode> {
    let (config, action, as_json) = match command {
        StoreCommand::Du { config, json } => (config, StoreAction::Usage, json),
        StoreCommand::Gc { config, max_bytes, min_free: min_free_bytes, all } => {
            (config, StoreAction::Collect { max_bytes, min_free_bytes, all }, false)
        }
        StoreCommand::Verify { config, json } => (config, StoreAction::Verify, json),
    };
    let (text, is_good) = worker::store(&config.load()?, action, as_json)?;
    write!(std::io::stdout(), "{text}")?;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
