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

/// Whether system calls of a RUN are filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompMode {
    /// With Docker's default profile, where the runtime can; without is said at start.
    #[default]
    Auto,
    /// With it; a worker whose runtime cannot does not start.
    Required,
    /// Not at all.
    Off,
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
    /// Whether system calls are filtered. `RUN --security=insecure` never is.
    pub seccomp: SeccompMode,
    /// Whether `RUN --security=insecure` is allowed: it can take over the worker.
    pub allow_insecure: bool,
    /// What a RUN never reaches, besides loopback, link-local addresses, this host and the
    /// coordinator: the farm's own services. `10.0.0.0/8`, `192.0.2.7:5432`, `[fd00::5]:6379`.
    pub deny_networks: Vec<String>,
    /// Memory of one RUN in bytes; 0 is no limit.
    pub memory_bytes: u64,
    /// CPU time of one RUN per wall time, in thousandths of a CPU; 0 is no limit.
    pub cpu_millis: u32,
    /// Processes and threads of one RUN.
    pub pids: u32,
    /// Disk that one RUN may fill, in bytes; 0 is no limit. Caches do not count.
    pub disk_bytes: u64,
    /// What has to stay free of the worker's disk, in bytes: a RUN is ended before.
    pub min_free_bytes: u64,
    /// Wall time of one RUN in seconds.
    pub timeout_secs: u64,
    /// A RUN that writes nothing for so many seconds is ended; 0 is no limit.
    pub silence_secs: u64,
    /// Output of one RUN that is kept, in bytes; of what comes after it only the end is.
    pub log_bytes: u64,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            kind: RuntimeKind::Auto,
            path: None,
            network: DefaultNetwork::Auto,
            allow_host_network: false,
            seccomp: SeccompMode::Auto,
            allow_insecure: false,
            deny_networks: Vec::new(),
            memory_bytes: 0,
            cpu_millis: 0,
            // Enough for `make -j` on a big machine, too little for a fork bomb to hurt.
            pids: 16_384,
            // Four times the largest layers that are seen in practice.
            disk_bytes: 100 << 30,
            min_free_bytes: 512 << 20,
            timeout_secs: 3 * 3600,
            silence_secs: 0,
            // Some 200 000 lines: more than anybody reads, little enough to keep for every step.
            log_bytes: 16 << 20,
        }
    }
}
