//! Starting a worker, and telling what a host allows.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use service::lifecycle::Lifecycle;

use crate::config::Config;
use crate::content::ContentStore;
use crate::dispatch::{Outside, Worker};
use crate::runtime::{ProbeError, Runtime};
use crate::session;

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The data directory.
    #[error("cannot use the data directory: {0}")]
    Content(#[from] std::io::Error),
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] ProbeError),
    /// The registries' configuration.
    #[error(transparent)]
    Registry(#[from] registry::RegistryError),
    /// The client of ADD.
    #[error(transparent)]
    Fetch(#[from] fetch::FetchError),
}

/// Runs a worker until the lifecycle stops.
pub async fn run(config: Config, lifecycle: &Lifecycle) -> Result<(), BootError> {
    let content = ContentStore::open(&config.worker.data_dir)?;
    let id = content.worker_id()?;
    let scratch = config.worker.data_dir.join("tmp");
    let mut runtime_config = config.runtime.clone();
    runtime_config.deny_networks.extend(coordinator_addresses(&config.coordinator.url).await);
    let runtime = tokio::task::spawn_blocking(move || Runtime::probe(&runtime_config, &scratch))
        .await
        .map_err(std::io::Error::other)??;
    tracing::info!(
        runtime = runtime.name(),
        network = runtime.network_name(),
        slots = config.worker.slots,
        "worker ready"
    );
    if runtime.network_name() == "isolated" {
        tracing::warn!("RUN reaches no network: install slirp4netns, nftables and iproute2");
    }
    let registry = registry::Client::new(registry::Config {
        registries: config.registries.clone(),
        docker_config: config.docker_config.clone(),
    })?;
    let fetcher = fetch::Fetcher::new(config.fetch)?;
    let client = client::worker::Client::new(&config.coordinator.url, &config.coordinator.token);
    let worker = Worker::new(
        id,
        config.worker.slots,
        Outside { client, registry, fetcher },
        runtime,
        content,
    );
    let name = config.worker.name.clone().unwrap_or_else(host_name);
    let (soft, hard) = (lifecycle.soft().clone(), lifecycle.hard().clone());
    let hand_back = {
        let (worker, soft) = (Arc::clone(&worker), soft.clone());
        let grace = Duration::from_secs(config.worker.drain_secs);
        async move {
            soft.cancelled().await;
            tokio::time::sleep(grace).await;
            worker.hand_back_all();
        }
    };
    let work = session::run(Arc::clone(&worker), name, soft, hard);
    tokio::pin!(work);
    tokio::select! {
        () = &mut work => {}
        () = hand_back => work.await,
    }
    worker.tasks.close();
    // Tasks unmount what they mounted.
    let _ = tokio::time::timeout(Duration::from_secs(5), worker.tasks.wait()).await;
    Ok(())
}

/// The coordinator's addresses and port, which no RUN may reach.
async fn coordinator_addresses(url: &str) -> Vec<String> {
    let Ok(url) = reqwest::Url::parse(url) else { return Vec::new() };
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Vec::new();
    };
    // An IPv6 address stands in brackets there.
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    match tokio::net::lookup_host((host.as_str(), port)).await {
        Ok(found) => found.map(|address| address.to_string()).collect(),
        Err(error) => {
            tracing::warn!(%host, %error, "the coordinator has no address: RUN may reach it later");
            Vec::new()
        }
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Says in words what this host allows.
pub fn doctor(config: &Config) -> String {
    let mut report = String::new();
    let root = rustix::process::geteuid().is_root();
    let line = |report: &mut String, good: bool, text: &str| {
        let _ = writeln!(report, "{} {text}", if good { "ok  " } else { "FAIL" });
    };
    line(&mut report, root, "runs as root: overlay mounts and containers need it");
    // A directory of its own: the worker's may be in use.
    let scratch = std::fs::create_dir_all(&config.worker.data_dir)
        .and_then(|()| tempfile::tempdir_in(&config.worker.data_dir));
    let text = format!("data directory {}", config.worker.data_dir.display());
    line(&mut report, scratch.is_ok(), &text);
    let Ok(scratch) = scratch else { return report };
    match Runtime::probe(&config.runtime, scratch.path()) {
        Ok(runtime) => {
            line(&mut report, true, &format!("{} runs containers", runtime.name()));
            let has_network = runtime.network_name() != "isolated";
            let text = if has_network {
                "RUN reaches the internet through slirp4netns"
            } else {
                "RUN reaches no network: install slirp4netns, nftables and iproute2"
            };
            line(&mut report, has_network, text);
        }
        Err(error) => line(&mut report, false, &error.to_string()),
    }
    report
}
