//! The sections of the file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fetch::FetchConfig;
use registry::RegistryConfig;
use serde::{Deserialize, Serialize};
use service::telemetry::LogConfig;

use crate::runtime::RuntimeConfig;

/// Sections that variables can name.
pub const SECTIONS: [&str; 5] = ["worker", "coordinator", "runtime", "fetch", "log"];

/// The whole configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The worker itself.
    pub worker: WorkerConfig,
    /// Whom it works for.
    pub coordinator: CoordinatorConfig,
    /// How commands run.
    #[serde(default)]
    pub runtime: RuntimeConfig,
    /// Registries.
    #[serde(default)]
    pub registries: BTreeMap<String, RegistryConfig>,
    /// Docker's `config.json` with credentials.
    #[serde(default)]
    pub docker_config: Option<PathBuf>,
    /// What ADD fetches.
    #[serde(default)]
    pub fetch: FetchConfig,
    /// Logs of the program.
    #[serde(default)]
    pub log: LogConfig,
}

impl Config {
    /// A configuration that works for nobody: to look at a host with.
    pub fn for_looking(data_dir: PathBuf) -> Self {
        Self {
            worker: WorkerConfig::new(data_dir),
            coordinator: CoordinatorConfig { url: String::new(), token: String::new() },
            runtime: RuntimeConfig::default(),
            registries: BTreeMap::new(),
            docker_config: None,
            fetch: FetchConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// Section `[worker]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// Name for people; absent is the host name.
    #[serde(default)]
    pub name: Option<String>,
    /// What stages may ask for, such as `gpu` or `disk=fast`.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Whether it runs builds whose code is a stranger's, as of pull requests from forks.
    #[serde(default)]
    pub accept_untrusted: bool,
    /// Processors that stages may ask for, in thousandths; 0 is not said, and then every stage fits.
    #[serde(default)]
    pub cpu_millis: u32,
    /// Memory that stages may ask for, in bytes; 0 is not said.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Where layers and files are kept: not on an overlay file system.
    pub data_dir: PathBuf,
    /// Stages that run at once.
    #[serde(default = "default_slots")]
    pub slots: u32,
    /// How long running stages may go on after a stop was asked for, in seconds; what has not
    /// ended by then is handed back.
    #[serde(default = "default_drain_secs")]
    pub drain_secs: u64,
    /// Most bytes that layers, blobs, manifests and cache mounts take on disk; absent are three
    /// quarters of the disk.
    #[serde(default)]
    pub store_max_bytes: Option<u64>,
    /// Bytes of the disk that stay free; absent is a tenth of it, but at most 20 GiB.
    #[serde(default)]
    pub store_min_free_bytes: Option<u64>,
    /// When space is needed, cache mounts that were not used for so long, in seconds, go first.
    #[serde(default = "default_store_cache_age_secs")]
    pub store_cache_age_secs: u64,
    /// Most bytes of one cache mount: one that holds more is emptied when nothing uses it; absent
    /// is no limit of its own.
    #[serde(default)]
    pub store_cache_max_bytes: Option<u64>,
}

impl WorkerConfig {
    /// A worker in this directory, everything else as it is where nobody says otherwise.
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            name: None,
            labels: Vec::new(),
            accept_untrusted: false,
            cpu_millis: 0,
            memory_bytes: 0,
            data_dir,
            slots: default_slots(),
            drain_secs: default_drain_secs(),
            store_max_bytes: None,
            store_min_free_bytes: None,
            store_cache_age_secs: default_store_cache_age_secs(),
            store_cache_max_bytes: None,
        }
    }
}

fn default_store_cache_age_secs() -> u64 {
    7 * 24 * 3600
}

fn default_slots() -> u32 {
    2
}

fn default_drain_secs() -> u64 {
    600
}

/// Section `[coordinator]`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinatorConfig {
    /// Its address.
    pub url: String,
    /// A join token: scope `workers`.
    pub token: String,
}

impl std::fmt::Debug for CoordinatorConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoordinatorConfig").field("url", &self.url).finish_non_exhaustive()
    }
}
