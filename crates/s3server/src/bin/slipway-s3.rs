//! `slipway-s3`: the S3 server as a program.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use s3server::{ServerConfig, serve};
use service::lifecycle::Lifecycle;
use service::telemetry;

/// A small S3 server over a directory.
#[derive(Parser)]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// Where the objects are kept.
    #[arg(long)]
    root: PathBuf,
    /// Access key id.
    #[arg(long, env = "SLIPWAY_S3_ACCESS_KEY")]
    access_key: String,
    /// Secret access key.
    #[arg(long, env = "SLIPWAY_S3_SECRET_KEY", hide_env_values = true)]
    secret_key: String,
    /// A bucket that exists from the start; may be repeated.
    #[arg(long)]
    bucket: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    telemetry::init(&telemetry::LogConfig::default());
    let lifecycle = Lifecycle::new();
    lifecycle.listen_to_signals()?;
    let listener = tokio::net::TcpListener::bind(arguments.listen).await?;
    // For whoever started it with port 0.
    writeln!(std::io::stdout(), "listening on {}", listener.local_addr()?)?;
    let config = ServerConfig {
        root: arguments.root,
        access_key: arguments.access_key,
        secret_key: arguments.secret_key,
        buckets: arguments.bucket,
    };
    let stop = lifecycle.soft().clone();
    lifecycle.spawn_essential("s3", async move {
        if let Err(error) = serve(listener, config, stop).await {
            tracing::error!(%error, "the S3 server failed");
        }
    });
    lifecycle.run_until_stopped(Duration::from_secs(10)).await;
    Ok(())
}
