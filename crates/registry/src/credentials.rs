//! Credentials from Docker's `config.json` and from the programs that it names.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::config::Config;
use crate::error::RegistryError;

/// How long a credential helper may take: some ask a server themselves.
const HELPER_LIMIT: Duration = Duration::from_secs(30);
/// Most that a helper may say.
const MAX_ANSWER_BYTES: u64 = 64 << 10;
/// What helpers and files know Docker Hub by.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// The user name that says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// What proves who we are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// User name and password.
    Password { user: String, password: String },
    /// A refresh token for the token server (OAuth 2).
    Identity(String),
    /// A token for the registry itself.
    Registry(String),
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, DockerAuth>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: HashMap<String, String>,
}

#[derive(Deserialize, Default)]
struct DockerAuth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
    #[serde(default)]
    registrytoken: String,
}

impl DockerAuth {
    fn credentials(&self) -> Option<Credentials> {
        if !self.registrytoken.is_empty() {
            return Some(Credentials::Registry(self.registrytoken.clone()));
        }
        if !self.identitytoken.is_empty() {
            return Some(Credentials::Identity(self.identitytoken.clone()));
        }
        if !self.username.is_empty() {
            let (user, password) = (self.username.clone(), self.password.clone());
            return Some(Credentials::Password { user, password });
        }
        let text = String::from_utf8(BASE64_STANDARD.decode(&self.auth).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        // Docker pads old entries with zeros.
        let password = password.trim_end_matches('\0').to_owned();
        Some(Credentials::Password { user: user.to_owned(), password })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// The credentials for a registry: from its own helper, else from the common one, else from the
/// file itself, as Docker looks for them.
pub(crate) async fn credentials(
    config: &Config,
    registry: &str,
) -> Result<Option<Credentials>, RegistryError> {
    let Some(path) = config.docker_config.clone().or_else(default_path) else { return Ok(None) };
    let wrong = |message: String| RegistryError::Config(path.display().to_string(), message);
    let text = match tokio::fs::read_to_string(&path).await {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let file: DockerConfig =
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let names: &[&str] = match registry {
        "docker.io" => &[DOCKER_HUB, "index.docker.io", "docker.io"],
        _ => &[registry],
    };
    let schemes = ["", "https://", "http://"];
    let all: Vec<String> = names
        .iter()
        .flat_map(|name| schemes.iter().map(move |scheme| format!("{scheme}{name}")))
        .collect();
    let own = all.iter().find_map(|name| file.cred_helpers.get(name));
    if let Some(helper) = own.or(file.creds_store.as_ref()).filter(|name| !name.is_empty()) {
        let server = if registry == "docker.io" { DOCKER_HUB } else { registry };
        if let Some(found) = ask_helper(helper, server).await? {
            return Ok(Some(found));
        }
    }
    Ok(all.iter().find_map(|name| file.auths.get(name)).and_then(DockerAuth::credentials))
}

/// Runs `docker-credential-NAME get` (docker-credential-helpers, "Development").
async fn ask_helper(name: &str, server: &str) -> Result<Option<Credentials>, RegistryError> {
    let program = format!("docker-credential-{name}");
    let wrong = |message: String| RegistryError::Config(program.clone(), message);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.len() > 100 || !name.bytes().all(is_name) {
        return Err(wrong("a credential helper cannot have this name".to_owned()));
    }
    let run = async {
        let mut child = tokio::process::Command::new(&program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // One that has failed already does not read.
            let _ = input.write_all(format!("{server}\n").as_bytes()).await;
        }
        let mut answer = Vec::new();
        if let Some(output) = child.stdout.take() {
            output.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
        }
        Ok::<_, std::io::Error>((child.wait().await?, answer))
    };
    let limit = HELPER_LIMIT.as_secs();
    let (status, answer) = tokio::time::timeout(HELPER_LIMIT, run)
        .await
        .map_err(|_| wrong(format!("no answer within {limit} seconds")))?
        .map_err(|error| wrong(error.to_string()))?;
    if !status.success() {
        let text = String::from_utf8_lossy(&answer);
        if text.contains("credentials not found") {
            return Ok(None);
        }
        let line: String = text.lines().next().unwrap_or_default().chars().take(200).collect();
        return Err(wrong(format!("{status}: {line}")));
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&answer).map_err(|error| wrong(error.to_string()))?;
    Ok(Some(if answer.username == TOKEN_USER {
        Credentials::Identity(answer.secret)
    } else {
        Credentials::Password { user: answer.username, password: answer.secret }
    }))
}

fn default_path() -> Option<PathBuf> {
    let directory = match std::env::var_os("DOCKER_CONFIG") {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".docker"),
    };
    Some(directory.join("config.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn find(text: &str, registry: &str) -> Option<Credentials> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let config = Config { docker_config: Some(file.path().to_owned()), ..Config::default() };
        credentials(&config, registry).await.unwrap()
    }

    #[tokio::test]
    async fn credentials_come_from_dockers_file() {
        let password = |user: &str, password: &str| {
            let (user, password) = (user.to_owned(), password.to_owned());
            Some(Credentials::Password { user, password })
        };
        for (entry, registry, expected) in [
            (
                r#""reg.example":{"auth":"dXNlcjpwYTpzcw=="}"#,
                "reg.example",
                password("user", "pa:ss"),
            ),
            (
                r#""https://reg.example":{"username":"a","password":"b"}"#,
                "reg.example",
                password("a", "b"),
            ),
            (r#""https://index.docker.io/v1/":{"auth":"YTpi"}"#, "docker.io", password("a", "b")),
            (r#""r":{"identitytoken":"t"}"#, "r", Some(Credentials::Identity("t".to_owned()))),
            (r#""r":{"registrytoken":"t"}"#, "r", Some(Credentials::Registry("t".to_owned()))),
            (r#""r":{}"#, "r", None),
            (r#""reg.example":{"auth":"YTpi"}"#, "other.example", None),
        ] {
            let text = format!(r#"{{"auths":{{{entry}}}}}"#);
            assert!(find(&text, registry).await == expected, "{entry}");
        }
    }

    #[tokio::test]
    async fn helpers_with_odd_names_are_not_run() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"credsStore":"../../bin/sh"}"#).unwrap();
        let config = Config { docker_config: Some(file.path().to_owned()), ..Config::default() };
        assert!(credentials(&config, "r").await.is_err());
    }
}
