//! Starting a worker.

use std::sync::Arc;
use std::time::Duration;

use common::Trust;
use service::lifecycle::Lifecycle;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, WorkerConfig};
use crate::content::{ContentStore, Limits, StoreAction, Wanted, keep, serve, store_command};
use crate::dispatch::{Offer, Outside, Worker};
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
    /// The rights of its user.
    #[error("cannot run without rights: {0}")]
    Rootless(String),
    /// The client of ADD.
    #[error(transparent)]
    Fetch(#[from] fetch::FetchError),
    /// A label that is not its operator's to give.
    #[error("worker.labels: {0} is the farm's own")]
    Label(String),
}

/// Runs a worker until the lifecycle stops.
pub async fn run(config: Config, lifecycle: &Lifecycle) -> Result<(), BootError> {
    let content = Arc::new(ContentStore::open(&config.worker.data_dir)?);
    // Layers hold programs that run with other rights, and device nodes: for the worker alone.
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&config.worker.data_dir, private)?;
    let limits = Limits::of(wanted(&config.worker), content.space()?);
    let id = content.worker_id()?;
    let looked = Arc::clone(&content);
    // Before the first word to the coordinator: there may be no room for work.
    tokio::task::spawn_blocking(move || looked.look_after(limits))
        .await
        .map_err(std::io::Error::other)?;
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
    warn(&runtime);
    let registry = registry::Client::new(registry::Config {
        registries: config.registries.clone(),
        docker_config: config.docker_config.clone(),
    })?;
    let fetcher = fetch::Fetcher::new(config.fetch)?;
    let client = client::worker::Client::new(&config.coordinator.url, &config.coordinator.token);
    let worker = Worker::new(
        id,
        Offer {
            slots: config.worker.slots,
            labels: labels(&config.worker)?,
            cpu_millis: config.worker.cpu_millis,
            memory_bytes: config.worker.memory_bytes,
        },
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

/// Says what the host does not allow.
/// The labels that it says it has.
fn labels(config: &WorkerConfig) -> Result<Vec<String>, BootError> {
    if let Some(label) = config.labels.iter().find(|label| label.starts_with(Trust::RESERVED)) {
        return Err(BootError::Label(label.clone()));
    }
    let own = config.accept_untrusted.then(|| Trust::LABEL.to_owned());
    Ok(config.labels.iter().cloned().chain(own).collect())
}

fn warn(runtime: &Runtime) {
    if let Some(problem) = runtime.no_network() {
        tracing::warn!(problem, "RUN reaches no network");
    }
    if !runtime.filters_calls() {
        tracing::warn!("system calls of RUN are not filtered: the runtime lacks seccomp");
    }
    if !runtime.limits_hold() {
        tracing::warn!("limits of memory, CPU and processes do not hold: no cgroup can be made");
    }
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
        cache_max_bytes: config.store_cache_max_bytes,
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
