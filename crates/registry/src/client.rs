//! Requests: authentication, retries, limits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;

use crate::auth::Challenge;
use crate::config::{Config, RegistryConfig};
use crate::credentials::{Credentials, credentials};
use crate::error::RegistryError;

/// Attempts of one request.
const ATTEMPTS: u32 = 5;
/// First pause between attempts; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause that a registry may ask for.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// Longest answer of a token server.
const MAX_TOKEN_BYTES: usize = 1 << 20;
/// Most of an error answer that is shown.
const MAX_ERROR_BYTES: usize = 300;

/// A client of registries. Clones share connections and tokens.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) config: Arc<Config>,
    http: reqwest::Client,
    /// For registries with certificates of their own, by host.
    own: Arc<HashMap<String, reqwest::Client>>,
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
    /// Another repository that a token has to let us pull from.
    pub(crate) also: Option<&'a str>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
}

impl Client {
    /// A client; private authorities are read now.
    pub fn new(config: Config) -> Result<Self, RegistryError> {
        // Another part of the program may have chosen a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let build = |builder: reqwest::ClientBuilder| {
            builder.build().map_err(|error| {
                RegistryError::Config("the HTTP client".to_owned(), root_cause(&error))
            })
        };
        let http = build(builder())?;
        let mut own = HashMap::new();
        for (host, registry) in &config.registries {
            if registry.ca.is_some() || registry.client_certificate.is_some() {
                own.insert(host.clone(), build(with_certificates(builder(), registry)?)?);
            }
        }
        let (config, own) = (Arc::new(config), Arc::new(own));
        Ok(Self { config, http, own, tokens: Arc::default() })
    }

    fn http(&self, host: &str) -> &reqwest::Client {
        self.own.get(host).unwrap_or(&self.http)
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
                let retry_after = asked_pause(response.headers());
                let text = read(response, 64 << 10).await.unwrap_or_default();
                let text = String::from_utf8_lossy(&text).into_owned();
                RegistryError::Status {
                    retry_after,
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
                    pause = asked_pause(response.headers()).unwrap_or(pause).min(LONGEST_PAUSE);
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

    /// Sends a request once; a token that has run out is renewed. For what cannot be repeated just so.
    pub(crate) async fn send_unrepeated(
        &self,
        request: &Request<'_>,
    ) -> Result<Response, RegistryError> {
        let mut response = self.send_once(request).await.map_err(|error| request.broken(&error))?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.authorise(request, &response).await?;
            response = self.send_once(request).await.map_err(|error| request.broken(&error))?;
        }
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(self.refusal(request, response, status).await)
    }

    async fn send_once(&self, request: &Request<'_>) -> reqwest::Result<Response> {
        let mut builder = self.begin(request);
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        builder.send().await
    }

    fn begin(&self, request: &Request<'_>) -> reqwest::RequestBuilder {
        let builder = self
            .http(request.host)
            .request(request.method.clone(), &request.url)
            .headers(request.headers.clone());
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        match tokens.get(&request.token_key()) {
            Some(token) => builder.header(AUTHORIZATION, token),
            None => builder,
        }
    }

    /// A request with a body that can be sent only once.
    pub(crate) async fn send_stream(
        &self,
        request: Request<'_>,
        length: u64,
        body: reqwest::Body,
    ) -> Result<Response, RegistryError> {
        let builder = self.begin(&request).header(reqwest::header::CONTENT_LENGTH, length);
        let response = builder.body(body).send().await.map_err(|error| request.broken(&error))?;
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
        let known = credentials(&self.config, request.host).await?;
        let value = match (challenge, known) {
            (_, Some(Credentials::Registry(token))) => format!("Bearer {token}"),
            (Challenge::Basic, Some(Credentials::Password { user, password })) => {
                use base64::Engine as _;
                let pair = format!("{user}:{password}");
                format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(pair))
            }
            (Challenge::Basic, _) => return Err(denied()),
            (Challenge::Bearer { realm, service }, known) => {
                let token = self.token(request, &realm, service, known).await?;
                format!("Bearer {}", token.ok_or_else(denied)?)
            }
        };
        let mut value = HeaderValue::from_str(&value).map_err(|_| denied())?;
        value.set_sensitive(true);
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(request.token_key(), value);
        Ok(())
    }

    /// Asks a token server; none when it refuses.
    async fn token(
        &self,
        request: &Request<'_>,
        realm: &str,
        service: Option<String>,
        known: Option<Credentials>,
    ) -> Result<Option<String>, RegistryError> {
        let invalid = |problem: &str| RegistryError::Invalid {
            registry: request.host.to_owned(),
            what: "the address of its token server".to_owned(),
            problem: problem.to_owned(),
        };
        let mut url = url::Url::parse(realm).map_err(|error| invalid(&error.to_string()))?;
        // A registry behind TLS must not have our password sent in the clear.
        let is_safe = url.scheme() == "https" || self.config.is_plain(request.host);
        if known.is_some() && !is_safe {
            return Err(invalid("it is not https"));
        }
        let scopes = request.scopes();
        let http = self.http(request.host);
        let builder = if let Some(Credentials::Identity(token)) = &known {
            let mut form = url::form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "refresh_token");
            form.append_pair("refresh_token", token).append_pair("client_id", "slipway");
            form.append_pair("scope", &scopes.join(" "));
            form.extend_pairs(service.iter().map(|service| ("service", service)));
            let kind = "application/x-www-form-urlencoded";
            http.post(url).header(reqwest::header::CONTENT_TYPE, kind).body(form.finish())
        } else {
            url.query_pairs_mut()
                .extend_pairs(scopes.iter().map(|scope| ("scope", scope)))
                .extend_pairs(service.iter().map(|service| ("service", service)));
            match known {
                Some(Credentials::Password { user, password }) => {
                    http.get(url).basic_auth(user, Some(password))
                }
                _ => http.get(url),
            }
        };
        let answer = self.patiently(request, builder).await?;
        if !answer.status().is_success() {
            return Ok(None);
        }
        let bytes = read(answer, MAX_TOKEN_BYTES).await.map_err(|problem| invalid(&problem))?;
        let token: Option<TokenAnswer> = serde_json::from_slice(&bytes).ok();
        Ok(token.and_then(|answer| answer.token.or(answer.access_token)))
    }

    /// Token servers are busy and away as registries are.
    async fn patiently(
        &self,
        request: &Request<'_>,
        builder: reqwest::RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..ATTEMPTS {
            let Some(once) = builder.try_clone() else { break };
            if let Ok(response) = once.send().await {
                if !is_busy(response.status()) {
                    return Ok(response);
                }
                pause = asked_pause(response.headers()).unwrap_or(pause).min(LONGEST_PAUSE);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        builder.send().await.map_err(|error| request.broken(&error))
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
        Self {
            method: Method::GET,
            host,
            url,
            repository,
            actions: "pull",
            also: None,
            headers: HeaderMap::new(),
            body: None,
        }
    }

    /// What a token has to be good for.
    fn scopes(&self) -> Vec<String> {
        let own = format!("repository:{}:{}", self.repository, self.actions);
        let also = self.also.map(|path| format!("repository:{path}:pull"));
        [own].into_iter().chain(also).collect()
    }

    fn token_key(&self) -> (String, String) {
        (self.host.to_owned(), self.scopes().join(" "))
    }

    fn broken(&self, error: &reqwest::Error) -> RegistryError {
        RegistryError::Unreachable { registry: self.host.to_owned(), message: root_cause(error) }
    }
}

fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .read_timeout(Duration::from_mins(1))
        .tcp_nodelay(true)
        .user_agent(concat!("slipway/", env!("CARGO_PKG_VERSION")))
}

/// Adds a registry's own authority, and what we show it.
fn with_certificates(
    mut builder: reqwest::ClientBuilder,
    registry: &RegistryConfig,
) -> Result<reqwest::ClientBuilder, RegistryError> {
    let wrong = |path: &std::path::Path, message: String| {
        RegistryError::Config(path.display().to_string(), message)
    };
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| wrong(path, error.to_string()))
    };
    if let Some(path) = &registry.ca {
        let certificates = reqwest::Certificate::from_pem_bundle(&read(path)?)
            .map_err(|error| wrong(path, root_cause(&error)))?;
        for certificate in certificates {
            builder = builder.add_root_certificate(certificate);
        }
    }
    if let Some(path) = &registry.client_certificate {
        let mut pem = read(path)?;
        if let Some(key) = &registry.client_key {
            pem.push(b'\n');
            pem.extend(read(key)?);
        }
        let identity =
            reqwest::Identity::from_pem(&pem).map_err(|error| wrong(path, root_cause(&error)))?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

/// Registry and path of `docker.io/library/alpine`.
pub(crate) fn split_repository(repository: &str) -> (&str, &str) {
    repository.split_once('/').unwrap_or(("docker.io", repository))
}

fn is_busy(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(std::time::SystemTime::now()).unwrap_or_default())
}

/// The body of an answer, up to a limit.
pub(crate) async fn read(response: Response, limit: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| error.to_string())?;
        if bytes.len() + chunk.len() > limit {
            return Err(format!("it is longer than {limit} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_seconds_or_dates() {
        let pause = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
            asked_pause(&headers)
        };
        assert_eq!(pause("7"), Some(Duration::from_secs(7)));
        assert_eq!(pause("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let later = std::time::SystemTime::now() + Duration::from_hours(1);
        let asked = pause(&httpdate::fmt_http_date(later)).unwrap();
        assert!(asked > Duration::from_mins(50) && asked <= Duration::from_hours(1));
        assert_eq!(pause("soon"), None);
    }
}
