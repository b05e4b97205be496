//! The sections of the file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use blobstore::objects::S3Config;
use fetch::FetchConfig;
use registry::RegistryConfig;
use serde::{Deserialize, Serialize};
use service::telemetry::LogConfig;

/// Sections that variables can name.
pub const SECTIONS: [&str; 9] =
    ["server", "database", "redis", "s3", "auth", "secrets", "fetch", "retention", "log"];

/// The whole configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How it is reached.
    #[serde(default)]
    pub server: ServerConfig,
    /// Postgres.
    pub database: DatabaseConfig,
    /// Redis; without it live logs reach the clients of one coordinator only.
    #[serde(default)]
    pub redis: Option<RedisConfig>,
    /// The object store.
    pub s3: S3Config,
    /// Who may do what.
    pub auth: AuthConfig,
    /// Secrets of builds; without it builds that bring secrets are refused.
    #[serde(default)]
    pub secrets: Option<SecretsConfig>,
    /// What ADD fetches: the coordinator asks whether it has changed.
    #[serde(default)]
    pub fetch: FetchConfig,
    /// What is kept, and how long.
    #[serde(default)]
    pub retention: RetentionConfig,
    /// Registries.
    #[serde(default)]
    pub registries: BTreeMap<String, RegistryConfig>,
    /// Logs of the program.
    #[serde(default)]
    pub log: LogConfig,
}

/// Section `[server]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// A file that gets the address once it is known: for port 0.
    pub address_file: Option<PathBuf>,
    /// A worker that has not called for this long, in seconds, is lost.
    pub worker_lost_after_secs: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7878)),
            address_file: None,
            worker_lost_after_secs: 15,
        }
    }
}

/// Section `[database]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `postgres://…`.
    pub url: String,
    /// Connections that this process holds at most.
    #[serde(default = "default_connections")]
    pub max_connections: u32,
}

fn default_connections() -> u32 {
    16
}

/// Section `[redis]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// `redis://…`.
    pub url: String,
}

/// Section `[retention]`: what is kept, and how long. docs/retention.md says what each means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// Cached layers and slices after their last use.
    pub cache_secs: u64,
    /// Bytes of a project in the object store; 0 is no limit.
    pub cache_bytes: u64,
    /// Files of contexts, and whatever else nothing refers to, after their last use.
    pub unused_secs: u64,
    /// Archives that clients asked for, after they were made.
    pub exports_secs: u64,
    /// Logs after the end of their build.
    pub logs_secs: u64,
    /// Builds after their end.
    pub builds_secs: u64,
    /// Pause between striking an object out and deleting its bytes.
    pub grace_secs: u64,
    /// How long an address is good that a client or worker sends or fetches an object by. Nothing is
    /// deleted that was used within twice this time.
    pub address_secs: u64,
    /// Time between rounds.
    pub interval_secs: u64,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Self {
            cache_secs: 14 * DAY,
            cache_bytes: 0,
            unused_secs: 7 * DAY,
            exports_secs: DAY,
            logs_secs: 30 * DAY,
            builds_secs: 90 * DAY,
            grace_secs: 3600,
            address_secs: 3600,
            interval_secs: 30,
        }
    }
}

/// Section `[auth]`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// Key that signs tokens: at least 32 bytes, in hex.
    pub key: String,
    /// Keys that signed tokens which are still good.
    #[serde(default)]
    pub old_keys: Vec<String>,
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthConfig { .. }")
    }
}

/// Section `[secrets]`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretsConfig {
    /// Key that seals the secrets of builds in the database: 32 bytes, in hex.
    pub key: String,
    /// Keys that sealed what is still there.
    #[serde(default)]
    pub old_keys: Vec<String>,
}

impl std::fmt::Debug for SecretsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretsConfig { .. }")
    }
}
