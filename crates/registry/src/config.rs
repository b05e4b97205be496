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
    /// Whether the registry speaks plain HTTP. Loopback ones always do.
    pub plain_http: bool,
    /// A file with the certificate of a private authority (PEM).
    pub ca: Option<PathBuf>,
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

    /// The address of a host's API, up to `/v2`.
    pub(crate) fn address(&self, host: &str) -> String {
        let plain = self.registries.get(host).is_some_and(|config| config.plain_http);
        let scheme = if plain || is_loopback(host) { "http" } else { "https" };
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
    }
}
