//! Section `[runtime]` of the worker's configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which OCI runtime runs commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeKind {
    /// The first of crun and runc that runs a container here.
    #[default]
    Auto,
    /// crun.
    Crun,
    /// runc.
    Runc,
}

/// What a RUN reaches when it does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultNetwork {
    /// The internet through slirp4netns where that is installed, else nothing; said at start.
    #[default]
    Auto,
    /// The internet through slirp4netns; without it the worker does not start.
    Slirp,
    /// Nothing but its own loopback.
    Isolated,
}

/// How commands run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Which OCI runtime.
    pub kind: RuntimeKind,
    /// Its program, where it is not in `PATH`.
    pub path: Option<PathBuf>,
    /// What a RUN reaches when it does not say.
    pub network: DefaultNetwork,
    /// Whether `RUN --network=host` is allowed.
    pub allow_host_network: bool,
    /// Whether `RUN --security=insecure` is allowed: it can take over the worker.
    pub allow_insecure: bool,
    /// Networks that a RUN never reaches, besides loopback and link-local ones: those of the farm's
    /// own services.
    pub deny_networks: Vec<String>,
    /// Memory of one RUN in bytes; 0 is no limit.
    pub memory_bytes: u64,
    /// Processes and threads of one RUN.
    pub pids: u32,
    /// Wall time of one RUN in seconds.
    pub timeout_secs: u64,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            kind: RuntimeKind::Auto,
            path: None,
            network: DefaultNetwork::Auto,
            allow_host_network: false,
            allow_insecure: false,
            deny_networks: Vec::new(),
            memory_bytes: 0,
            // Enough for `make -j` on a big machine, too little for a fork bomb to hurt.
            pids: 16_384,
            timeout_secs: 3 * 3600,
        }
    }
}
