//! Starting a worker, and telling what a host allows.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use service::lifecycle::Lifecycle;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, WorkerConfig};
use crate::content::{ContentStore, Limits, StoreAction, Wanted, keep, serve, store_command};
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
    let content = Arc::new(ContentStore::open(&config.worker.data_dir)?);
    let limits = Limits::of(wanted(&config.worker), content.space()?);
    let id = content.worker_id()?;
    let looked = Arc::clone(&content);
    // Before the first word to the coordinator: there may be no room for work.
    tokio::task::spawn_blocking(move || looked.look_after(limits))
        .await
        .map_err(std::io::Error::other)?;
    let scratch = config.worker.data_dir.join("tmp");
    let runtime_config = config.runtime.clone();
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
    let keeping = CancellationToken::new();
    keep_store(&worker, limits, &keeping);
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
    keeping.cancel();
    worker.tasks.close();
    // Tasks unmount what they mounted.
    let _ = tokio::time::timeout(Duration::from_secs(5), worker.tasks.wait()).await;
    Ok(())
}

/// Looks after the store as long as there is work, and answers what operators ask of it.
fn keep_store(worker: &Arc<Worker>, limits: Limits, stop: &CancellationToken) {
    let told = Arc::downgrade(worker);
    let on_change = move || {
        if let Some(worker) = told.upgrade() {
            worker.changed.notify_one();
        }
    };
    worker.tasks.spawn(keep(Arc::clone(&worker.content), limits, on_change, stop.clone()));
    worker.tasks.spawn(serve(Arc::clone(&worker.content), limits, stop.clone()));
}

fn wanted(config: &WorkerConfig) -> Wanted {
    Wanted {
        max_bytes: config.store_max_bytes,
        min_free_bytes: config.store_min_free_bytes,
        cache_age_secs: config.store_cache_age_secs,
    }
}

/// Does something with a worker's store, also beside the running worker. Returns what to print and
/// whether all is well.
pub fn store(
    config: &Config,
    action: StoreAction,
    as_json: bool,
) -> Result<(String, bool), BootError> {
    let WorkerConfig { data_dir, .. } = &config.worker;
    Ok(store_command(data_dir, wanted(&config.worker), action, as_json)?)
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
