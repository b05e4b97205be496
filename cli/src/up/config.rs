//! The configuration of a farm on one machine, and of its parts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use blobstore::objects::S3Config;
use coordinator::config::{
    AuthConfig, DatabaseConfig, RetentionConfig, SecretsConfig, ServerConfig,
};
use fetch::FetchConfig;
use registry::RegistryConfig;
use serde::{Deserialize, Serialize};
use service::telemetry::{LogConfig, LogFormat};
use worker::config::{CoordinatorConfig, WorkerConfig};
use worker::runtime::RuntimeConfig;

use super::keys::Keys;
use crate::exit::CliError;

/// Sections that variables can name.
const SECTIONS: [&str; 4] = ["runtime", "fetch", "retention", "log"];

/// The file of `--config`: what a farm on one machine leaves to decide.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct UpConfig {
    /// How commands run.
    pub(super) runtime: RuntimeConfig,
    /// Registries: mirrors, plain HTTP, authorities.
    pub(super) registries: BTreeMap<String, RegistryConfig>,
    /// Docker's `config.json` with credentials.
    pub(super) docker_config: Option<PathBuf>,
    /// What ADD fetches.
    pub(super) fetch: FetchConfig,
    /// What is kept, and how long.
    pub(super) retention: RetentionConfig,
    /// Logs on the terminal.
    pub(super) log: Option<LogConfig>,
}

impl UpConfig {
    /// Reads the file, if there is one.
    pub(super) fn load(path: Option<&Path>) -> Result<Self, CliError> {
        service::config::load(path, &SECTIONS, std::env::vars())
            .map_err(|error| CliError::usage(error.to_string()))
    }

    /// What is logged on the terminal: what somebody has to do something about.
    pub(super) fn terminal_log(&self) -> LogConfig {
        let filter = "warn,sqlx=error".to_owned();
        let quiet = || LogConfig { format: LogFormat::Text, filter };
        self.log.clone().unwrap_or_else(quiet)
    }

    pub(super) fn coordinator(
        &self,
        listen: SocketAddr,
        database_url: String,
        object_store: SocketAddr,
        keys: &Keys,
    ) -> coordinator::Config {
        coordinator::Config {
            server: ServerConfig { listen, ..ServerConfig::default() },
            database: DatabaseConfig { url: database_url, max_connections: 16 },
            redis: None,
            s3: S3Config {
                endpoint: format!("http://{object_store}"),
                public_endpoint: None,
                region: "us-east-1".to_owned(),
                bucket: "slipway".to_owned(),
                access_key: keys.s3_access.clone(),
                secret_key: keys.s3_secret.clone(),
                path_style: true,
                upload_checksums: true,
            },
            auth: AuthConfig { key: keys.auth.clone(), old_keys: Vec::new() },
            secrets: Some(SecretsConfig { key: keys.secrets.clone(), old_keys: Vec::new() }),
            fetch: self.fetch,
            retention: self.retention.clone(),
            registries: self.registries.clone(),
            log: self.terminal_log(),
        }
    }

    pub(super) fn worker(
        &self,
        name: String,
        data_dir: PathBuf,
        slots: u32,
        coordinator_url: String,
        token: String,
    ) -> worker::Config {
        worker::Config {
            // The owner waits at the terminal: what is not done soon goes back to the queue.
            worker: WorkerConfig {
                name: Some(name),
                slots,
                drain_secs: 5,
                ..WorkerConfig::new(data_dir)
            },
            coordinator: CoordinatorConfig { url: coordinator_url, token },
            runtime: self.runtime.clone(),
            registries: self.registries.clone(),
            docker_config: self.docker_config.clone(),
            fetch: self.fetch,
            log: LogConfig::default(),
        }
    }
}
