//! Sections `[registries."…"]` of a configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How registries are reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Config {
    /// By registry, such as `docker.io`.
    #[serde(default)]
    pub registries: BTreeMap<String, RegistryConfig>,
    /// Docker's `config.json` with credentials; absent: `$DOCKER_CONFIG` or `~/.docker`.
    #[serde(default)]
    pub docker_config: Option<PathBuf>,
}

/// How one registry is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Registries that are asked first, in order, for what this one has: `host:port`.
    pub mirrors: Vec<String>,
    /// Whether the registry speaks plain HTTP. When nothing is said loopback ones do, others do not.
    pub plain_http: Option<bool>,
    /// A file with the certificates of a private authority (PEM). Only this registry may use it.
    pub ca: Option<PathBuf>,
    /// A file with the certificate that we show it (PEM).
    pub client_certificate: Option<PathBuf>,
    /// The key of that certificate (PEM).
    pub client_key: Option<PathBuf>,
    /// Longest body, in bytes, that it or a proxy before it takes: longer blobs are sent in pieces.
    pub max_request_bytes: Option<u64>,
}

impl Config {
    /// The hosts to ask for what `registry` has, best first.
    pub(crate) fn hosts(&self, registry: &str) -> Vec<String> {
        let mut hosts = self.mirrors(registry).to_vec();
        hosts.push(registry.to_owned());
        hosts
    }

    fn mirrors(&self, registry: &str) -> &[String] {
        self.registries.get(registry).map_or(&[], |config| config.mirrors.as_slice())
    }

    /// Whether a host is spoken to without TLS.
    pub(crate) fn is_plain(&self, host: &str) -> bool {
        let said = self
            .registries
            .get(host)
            .and_then(|config| config.plain_http.or(config.ca.is_some().then_some(false)));
        said.unwrap_or_else(|| is_loopback(host))
    }

    /// Longest body that a host takes.
    pub(crate) fn max_request_bytes(&self, host: &str) -> Option<u64> {
        self.registries.get(host)?.max_request_bytes
    }

    /// The address of a host's API, up to `/v2`.
    pub(crate) fn address(&self, host: &str) -> String {
        let scheme = if self.is_plain(host) { "http" } else { "https" };
        let host = if host == "docker.io" { "registry-1.docker.io" } else { host };
        format!("{scheme}://{host}/v2")
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    name == "localhost" || name == "[::1]" || name.starts_with("127.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_first_and_loopback_is_plain() {
        let mut config = Config::default();
        let mirrors = vec!["127.0.0.1:5000".to_owned()];
        let docker = RegistryConfig { mirrors, ..RegistryConfig::default() };
        config.registries.insert("docker.io".to_owned(), docker);
        assert_eq!(config.hosts("docker.io"), ["127.0.0.1:5000", "docker.io"]);
        assert_eq!(config.address("127.0.0.1:5000"), "http://127.0.0.1:5000/v2");
        assert_eq!(config.address("docker.io"), "https://registry-1.docker.io/v2");
        assert_eq!(config.address("ghcr.io"), "https://ghcr.io/v2");
        let plain = |plain_http| RegistryConfig { plain_http, ..RegistryConfig::default() };
        config.registries.insert("ghcr.io".to_owned(), plain(Some(true)));
        config.registries.insert("127.0.0.1:5000".to_owned(), plain(Some(false)));
        assert_eq!(config.address("ghcr.io"), "http://ghcr.io/v2");
        assert_eq!(config.address("127.0.0.1:5000"), "https://127.0.0.1:5000/v2");
    }
}
