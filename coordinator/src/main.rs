//! `slipway-coordinator`.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use coordinator::auth::{KeyRing, Scope};
use coordinator::config::SECTIONS;
use coordinator::simulation::{Farm, Shape, Workload, random, recorded, simulate};
use coordinator::{Config, Server};
use service::lifecycle::Lifecycle;

/// Plans builds, keeps them in Postgres, hands stages to workers.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API, plan builds, schedule stages.
    Serve(ConfigArgument),
    /// Bring the database schema up to date.
    Migrate(ConfigArgument),
    /// Make a token and print it.
    Token {
        #[command(flatten)]
        config: ConfigArgument,
        /// Whose it is, for logs.
        #[arg(long, default_value = "operator")]
        subject: String,
        /// What it allows: builds:read, builds:write, workers, admin; may be repeated.
        #[arg(long, required = true)]
        scope: Vec<Scope>,
        /// For which project; * is all; may be repeated.
        #[arg(long, default_value = "*")]
        project: Vec<String>,
        /// How long it is good, in hours.
        #[arg(long, default_value_t = 24)]
        ttl_hours: u64,
    },
    /// Print the API's OpenAPI document.
    Openapi,
    /// Say what the scheduler makes of a workload, on a farm with a virtual clock.
    Simulate(Simulate),
}

#[derive(clap::Args)]
struct Simulate {
    /// Workers.
    #[arg(long, default_value_t = 10)]
    workers: usize,
    /// Stages that each runs at once.
    #[arg(long, default_value_t = 2)]
    slots: u32,
    /// Random builds: wide, deep, diamond, mixed or burst.
    #[arg(long, default_value = "mixed")]
    shape: Shape,
    /// Stages of the random builds.
    #[arg(long, default_value_t = 1000)]
    stages: usize,
    /// Projects that they belong to: p0, p1 and so on.
    #[arg(long, default_value_t = 5)]
    projects: u32,
    /// Weight of a project, as PROJECT=WEIGHT; 100 where none is named.
    #[arg(long, value_parser = weight)]
    weight: Vec<(String, u32)>,
    /// Another seed is another workload.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Instead of random builds one that was run, as `slipway show --json` prints it.
    #[arg(long)]
    recorded: Option<PathBuf>,
    /// How many of it come at once.
    #[arg(long, default_value_t = 1)]
    times: usize,
}

fn weight(text: &str) -> Result<(String, u32), String> {
    let (project, weight) = text.split_once('=').ok_or("not PROJECT=WEIGHT")?;
    Ok((project.to_owned(), weight.parse().map_err(|_| "the weight is no number")?))
}

impl Simulate {
    fn workload(&self) -> anyhow::Result<Workload> {
        let Some(path) = &self.recorded else {
            return Ok(random(self.shape, self.stages, self.projects, self.seed));
        };
        let text = std::fs::read(path).with_context(|| path.display().to_string())?;
        Ok(recorded(&text, self.times)?)
    }

    fn farm(&self) -> Farm {
        let weights = self.weight.iter().cloned().collect();
        Farm { workers: self.workers.max(1), slots: self.slots.max(1), weights, seed: self.seed }
    }
}

#[derive(clap::Args)]
struct ConfigArgument {
    /// The configuration file; every value can also be a variable SLIPWAY_<SECTION>_<KEY>.
    #[arg(long, env = "SLIPWAY_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigArgument {
    fn load(&self) -> anyhow::Result<Config> {
        Ok(service::config::load(self.config.as_deref(), &SECTIONS, std::env::vars())?)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Serve(config) => serve(config.load()?).await,
        Command::Migrate(config) => {
            let config = config.load()?;
            service::telemetry::init(&config.log);
            let store = store::Store::connect(&config.database.url, 1).await?;
            store.migrate().await?;
            tracing::info!("the schema is up to date");
            Ok(())
        }
        Command::Token { config, subject, scope, project, ttl_hours } => {
            let config = config.load()?;
            let keys = KeyRing::new(&config.auth.key, &config.auth.old_keys)?;
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
            let claims =
                KeyRing::claims(&subject, scope, project, since.as_secs(), ttl_hours * 3600);
            writeln!(std::io::stdout(), "{}", keys.sign(&claims)?)?;
            Ok(())
        }
        Command::Openapi => {
            writeln!(std::io::stdout(), "{}", coordinator::openapi()?)?;
            Ok(())
        }
        Command::Simulate(arguments) => {
            let report = simulate(&arguments.workload()?, &arguments.farm());
            writeln!(std::io::stdout(), "{report}")?;
            Ok(())
        }
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    service::telemetry::init(&config.log);
    let lifecycle = Lifecycle::new();
    lifecycle.listen_to_signals()?;
    let server = Server::bind(config).await.context("cannot start")?;
    server.start(&lifecycle);
    lifecycle.run_until_stopped(Duration::from_secs(10)).await;
    Ok(())
}
