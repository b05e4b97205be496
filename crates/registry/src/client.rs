//! Requests: authentication, retries, limits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use common::Digest;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;

use crate::auth::{Challenge, credentials};
use crate::config::Config;
use crate::error::RegistryError;

/// Attempts of one request.
const ATTEMPTS: u32 = 5;
/// First pause between attempts; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause that a registry may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// Most of an error answer that is shown.
const MAX_ERROR_BYTES: usize = 300;

/// A client of registries. Clones share connections and tokens.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) config: Arc<Config>,
    http: reqwest::Client,
    /// By host and scope: the value of `Authorization`.
    tokens: Arc<Mutex<HashMap<(String, String), HeaderValue>>>,
}

/// One request, to be made as often as needed.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) host: &'a str,
    pub(crate) url: String,
    /// Repository that a token has to be good for.
    pub(crate) repository: &'a str,
    /// `pull` or `pull,push`.
    pub(crate) actions: &'static str,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
}

impl Client {
    /// A client; private authorities are read now.
    pub fn new(config: Config) -> Result<Self, RegistryError> {
        // Another part of the program may have chosen a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(Duration::from_mins(1))
            .tcp_nodelay(true)
            .user_agent(concat!("slipway/", env!("CARGO_PKG_VERSION")));
        for registry in config.registries.values() {
            let Some(path) = &registry.ca else { continue };
            let wrong =
                |message: String| RegistryError::Config(path.display().to_string(), message);
            let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            let certificate =
                reqwest::Certificate::from_pem(&pem).map_err(|error| wrong(error.to_string()))?;
            builder = builder.add_root_certificate(certificate);
        }
        let http = builder.build().map_err(|error| {
            RegistryError::Config("the HTTP client".to_owned(), error.to_string())
        })?;
        Ok(Self { config: Arc::new(config), http, tokens: Arc::default() })
    }

    /// The bytes of a blob of `repository` (with registry, such as `docker.io/library/alpine`).
    /// Whoever reads them checks the digest.
    pub async fn pull_blob(
        &self,
        repository: &str,
        digest: &Digest,
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>, RegistryError> {
        let (registry, path) = split_repository(repository);
        let mut last = None;
        for host in self.config.hosts(registry) {
            let url = format!("{}/{path}/blobs/{digest}", self.config.address(&host));
            let request = Request::get(&host, url, path);
            match self.send(request).await {
                Ok(response) => {
                    return Ok(response.bytes_stream().map_err(std::io::Error::other).boxed());
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| RegistryError::NotFound(repository.to_owned())))
    }

    /// Sends a request until it is answered well. 401 is answered with credentials, 429 and 5xx
    /// and broken connections with patience.
    pub(crate) async fn send(&self, request: Request<'_>) -> Result<Response, RegistryError> {
        let response = self.send_any(&request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(self.refusal(&request, response, status).await)
    }

    /// Like [`Self::send`], but 404 is an answer.
    pub(crate) async fn send_optional(
        &self,
        request: Request<'_>,
    ) -> Result<Option<Response>, RegistryError> {
        let response = self.send_any(&request).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(response)),
            status => Err(self.refusal(&request, response, status).await),
        }
    }

    async fn refusal(
        &self,
        request: &Request<'_>,
        response: Response,
        status: StatusCode,
    ) -> RegistryError {
        let registry = request.host.to_owned();
        match status {
            StatusCode::NOT_FOUND => {
                RegistryError::NotFound(format!("{registry}/{}", request.repository))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                RegistryError::Denied { registry, what: request.repository.to_owned() }
            }
            status => {
                let text = response.text().await.unwrap_or_default();
                RegistryError::Status {
                    registry,
                    status: status.as_u16(),
                    action: format!("{} {}", request.method, path_of(&request.url)),
                    message: text.chars().take(MAX_ERROR_BYTES).collect(),
                }
            }
        }
    }

    async fn send_any(&self, request: &Request<'_>) -> Result<Response, RegistryError> {
        let mut pause = FIRST_PAUSE;
        let mut authorised = false;
        let mut attempt = 1;
        loop {
            match self.send_once(request).await {
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && !authorised => {
                    authorised = true;
                    self.authorise(request, &response).await?;
                    continue;
                }
                Ok(response) if is_busy(response.status()) && attempt < ATTEMPTS => {
                    pause = asked_pause(&response).unwrap_or(pause).min(LONGEST_PAUSE);
                }
                Ok(response) => return Ok(response),
                // Nobody listens: two more tries bridge a restart, more only delay the message.
                Err(error) if attempt >= if error.is_connect() { 3 } else { ATTEMPTS } => {
                    return Err(RegistryError::Unreachable {
                        registry: request.host.to_owned(),
                        message: root_cause(&error),
                    });
                }
                Err(_) => {}
            }
            attempt += 1;
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn send_once(&self, request: &Request<'_>) -> reqwest::Result<Response> {
        let mut builder = self
            .http
            .request(request.method.clone(), &request.url)
            .headers(request.headers.clone());
        let token = {
            let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.get(&(request.host.to_owned(), request.scope())).cloned()
        };
        if let Some(token) = token {
            builder = builder.header(AUTHORIZATION, token);
        }
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        builder.send().await
    }

    /// A request with a body that can be sent only once.
    pub(crate) async fn send_stream(
        &self,
        request: Request<'_>,
        length: u64,
        body: reqwest::Body,
    ) -> Result<Response, RegistryError> {
        let mut builder = self
            .http
            .request(request.method.clone(), &request.url)
            .headers(request.headers.clone())
            .header(reqwest::header::CONTENT_LENGTH, length);
        let token = {
            let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.get(&(request.host.to_owned(), request.scope())).cloned()
        };
        if let Some(token) = token {
            builder = builder.header(AUTHORIZATION, token);
        }
        let response =
            builder.body(body).send().await.map_err(|error| RegistryError::Unreachable {
                registry: request.host.to_owned(),
                message: root_cause(&error),
            })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(self.refusal(&request, response, status).await)
    }

    /// Gets what `WWW-Authenticate` asks for and keeps it for this host and scope.
    async fn authorise(
        &self,
        request: &Request<'_>,
        response: &Response,
    ) -> Result<(), RegistryError> {
        let denied = || RegistryError::Denied {
            registry: request.host.to_owned(),
            what: request.repository.to_owned(),
        };
        let header = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let challenge = header.and_then(Challenge::parse).ok_or_else(denied)?;
        let known = credentials(&self.config, request.host)?;
        let value = match challenge {
            Challenge::Basic => {
                use base64::Engine as _;
                let known = known.ok_or_else(denied)?;
                let pair = format!("{}:{}", known.user, known.password);
                format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(pair))
            }
            Challenge::Bearer { realm, service } => {
                let mut builder = self.http.get(realm).query(&[("scope", request.scope())]);
                if let Some(service) = service {
                    builder = builder.query(&[("service", service)]);
                }
                if let Some(known) = known {
                    builder = builder.basic_auth(known.user, Some(known.password));
                }
                let answer = builder.send().await.map_err(|error| RegistryError::Unreachable {
                    registry: request.host.to_owned(),
                    message: root_cause(&error),
                })?;
                if !answer.status().is_success() {
                    return Err(denied());
                }
                let token: TokenAnswer = answer.json().await.map_err(|_| denied())?;
                format!("Bearer {}", token.token.or(token.access_token).ok_or_else(denied)?)
            }
        };
        let mut value = HeaderValue::from_str(&value).map_err(|_| denied())?;
        value.set_sensitive(true);
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert((request.host.to_owned(), request.scope()), value);
        Ok(())
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl<'a> Request<'a> {
    /// A GET.
    pub(crate) fn get(host: &'a str, url: String, repository: &'a str) -> Self {
        let headers = HeaderMap::new();
        Self { method: Method::GET, host, url, repository, actions: "pull", headers, body: None }
    }

    fn scope(&self) -> String {
        format!("repository:{}:{}", self.repository, self.actions)
    }
}

/// Registry and path of `docker.io/library/alpine`.
pub(crate) fn split_repository(repository: &str) -> (&str, &str) {
    repository.split_once('/').unwrap_or(("docker.io", repository))
}

fn is_busy(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

fn asked_pause(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn path_of(url: &str) -> String {
    url::Url::parse(url).map_or_else(|_| url.to_owned(), |url| url.path().to_owned())
}

/// The innermost message: "connection refused" tells more than "error sending request".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
