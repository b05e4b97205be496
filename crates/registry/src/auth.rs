//! Credentials and tokens (distribution specification, "Token Authentication").

use std::collections::HashMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use crate::config::Config;
use crate::error::RegistryError;

/// User name and password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
}

#[derive(Deserialize, Default)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    #[serde(default)]
    auth: String,
}

/// The credentials that Docker's `config.json` has for a registry.
pub(crate) fn credentials(
    config: &Config,
    registry: &str,
) -> Result<Option<Credentials>, RegistryError> {
    let Some(path) = config.docker_config.clone().or_else(default_path) else { return Ok(None) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(RegistryError::Config(path.display().to_string(), error.to_string()));
        }
    };
    let file: DockerConfig = serde_json::from_str(&text)
        .map_err(|error| RegistryError::Config(path.display().to_string(), error.to_string()))?;
    let names: &[&str] = match registry {
        "docker.io" => &["https://index.docker.io/v1/", "index.docker.io", "docker.io"],
        _ => &[registry],
    };
    let schemes = ["", "https://", "http://"];
    let found = names
        .iter()
        .flat_map(|name| schemes.iter().map(move |scheme| format!("{scheme}{name}")))
        .find_map(|name| file.auths.get(&name));
    Ok(found.and_then(|entry| decode(&entry.auth)))
}

fn decode(auth: &str) -> Option<Credentials> {
    let text = String::from_utf8(BASE64_STANDARD.decode(auth).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Credentials { user: user.to_owned(), password: password.to_owned() })
}

fn default_path() -> Option<PathBuf> {
    let directory = match std::env::var_os("DOCKER_CONFIG") {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".docker"),
    };
    Some(directory.join("config.json"))
}

/// What a registry asks for in `WWW-Authenticate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token from elsewhere.
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// Reads the header's value.
    pub(crate) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut parameters = HashMap::new();
        let mut rest = rest.trim();
        while let Some((key, after)) = rest.split_once('=') {
            let after = after.trim_start();
            let (value, next) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            parameters.insert(key.trim().to_ascii_lowercase(), value.to_owned());
            rest = next.trim_start_matches([',', ' ']);
        }
        let realm = parameters.remove("realm")?;
        Some(Self::Bearer { realm, service: parameters.remove("service") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="a,b""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.docker.io/token".into(),
            service: Some("registry.docker.io".into()),
        };
        assert_eq!(Challenge::parse(header), Some(expected));
        assert_eq!(Challenge::parse(r#"Basic realm="x""#), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Negotiate"), None);
    }

    #[test]
    fn credentials_come_from_dockers_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"auths":{"reg.example":{"auth":"dXNlcjpwYTpzcw=="}}}"#)
            .unwrap();
        let config = Config { docker_config: Some(file.path().to_owned()), ..Config::default() };
        let found = credentials(&config, "reg.example").unwrap().unwrap();
        assert_eq!((found.user.as_str(), found.password.as_str()), ("user", "pa:ss"));
        assert!(credentials(&config, "other.example").unwrap().is_none());
    }
}
