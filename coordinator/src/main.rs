//! `slipway-coordinator`.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use coordinator::auth::{KeyRing, Scope};
use coordinator::config::SECTIONS;
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
