//! The client.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use common::Digest;
use common::digest::Hasher;
use futures_util::StreamExt as _;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, ETAG, HeaderValue, LAST_MODIFIED};
use reqwest::redirect::Policy;
use reqwest::{Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use url::{Host, Url};

use crate::address::is_public;
use crate::credentials::Credentials;
use crate::error::FetchError;

/// Attempts of one request.
const ATTEMPTS: u32 = 4;
/// First pause between attempts; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(300);
/// Most redirects in a row.
const MAX_REDIRECTS: usize = 10;

/// Section `[fetch]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FetchConfig {
    /// Whether addresses of private networks, and of this machine, may be fetched from.
    pub allow_private_networks: bool,
    /// Longest file in bytes.
    pub max_bytes: u64,
    /// Longest time for one file, in seconds.
    pub timeout_secs: u64,
}

impl Default for FetchConfig {
    fn default() -> Self {
        Self { allow_private_networks: false, max_bytes: 10 << 30, timeout_secs: 3600 }
    }
}

/// Fetches. Clones share connections.
#[derive(Debug, Clone)]
pub struct Fetcher {
    http: reqwest::Client,
    pub(crate) config: FetchConfig,
    pub(crate) credentials: Credentials,
    /// Whether repositories may be fetched over ssh, with the agent and the keys of whoever runs
    /// this program.
    pub(crate) uses_own_ssh: bool,
}

/// A file that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Downloaded {
    /// Digest of its bytes.
    pub digest: Digest,
    /// How many.
    pub size_bytes: u64,
    /// When the server says that it was changed, in seconds since 1970.
    pub modified: Option<i64>,
}

/// What redirects say that lead where they must not; found again in the error.
#[derive(Debug, thiserror::Error)]
#[error("it leads to a private network")]
struct LeadsToPrivate;

/// Resolves names to public addresses only.
#[derive(Debug)]
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let all: Vec<SocketAddr> = found.collect();
            let public: Vec<SocketAddr> =
                all.iter().copied().filter(|address| is_public(address.ip())).collect();
            if public.is_empty() && !all.is_empty() {
                return Err(LeadsToPrivate.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

impl Fetcher {
    /// A client.
    pub fn new(config: FetchConfig) -> Result<Self, FetchError> {
        // Another part of the program may have chosen a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let allows_all = config.allow_private_networks;
        let policy = Policy::custom(move |attempt| {
            if attempt.previous().len() > MAX_REDIRECTS {
                return attempt.error("too many redirects");
            }
            if !allows_all && names_private(attempt.url()) {
                return attempt.error(LeadsToPrivate);
            }
            attempt.follow()
        });
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_mins(1))
            .timeout(Duration::from_secs(config.timeout_secs))
            .redirect(policy)
            .user_agent(concat!("slipway/", env!("CARGO_PKG_VERSION")));
        if !allows_all {
            // A proxy would resolve names itself.
            builder = builder.dns_resolver(Arc::new(PublicOnly)).no_proxy();
        }
        let http = builder.build().map_err(|error| FetchError::Client(error.to_string()))?;
        Ok(Self { http, config, credentials: Credentials::default(), uses_own_ssh: false })
    }

    /// A client for what the user of this program names: it goes wherever he may.
    pub fn of_user() -> Result<Self, FetchError> {
        let config = FetchConfig { allow_private_networks: true, ..FetchConfig::default() };
        Ok(Self { uses_own_ssh: true, ..Self::new(config)? })
    }

    /// The same with what is to be shown to servers.
    #[must_use]
    pub fn with_credentials(&self, credentials: Credentials) -> Self {
        Self { credentials, ..self.clone() }
    }

    /// The same for whoever is not to reach private networks, whatever the configuration allows.
    pub fn public_only(&self) -> Result<Self, FetchError> {
        if !self.config.allow_private_networks {
            return Ok(self.clone());
        }
        let config = FetchConfig { allow_private_networks: false, ..self.config };
        let (credentials, uses_own_ssh) = (self.credentials.clone(), self.uses_own_ssh);
        Ok(Self { credentials, uses_own_ssh, ..Self::new(config)? })
    }

    /// The same for files of at most so many bytes.
    #[must_use]
    pub fn limited_to(&self, max_bytes: u64) -> Self {
        let max_bytes = self.config.max_bytes.min(max_bytes);
        Self { config: FetchConfig { max_bytes, ..self.config }, ..self.clone() }
    }

    /// What changes when the file behind an address does, as far as the server tells: its entity tag
    /// or its time. Nothing when it tells neither.
    pub async fn validator(&self, url: &str) -> Result<Option<String>, FetchError> {
        let response = self.head(url).await?;
        let header = |name| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let tag = header(ETAG).map(|tag| format!("etag {tag}"));
        Ok(tag.or_else(|| header(LAST_MODIFIED).map(|time| format!("modified {time}"))))
    }

    /// The answer without its body.
    pub(crate) async fn head(&self, url: &str) -> Result<Response, FetchError> {
        match self.send(Method::HEAD, url).await {
            // Not everybody knows HEAD; the body of the other answer is not read.
            Err(FetchError::Status { status: 403 | 404 | 405 | 501, .. }) => {
                self.send(Method::GET, url).await
            }
            other => other,
        }
    }

    /// Downloads into a new file.
    pub async fn download(&self, url: &str, path: &Path) -> Result<Downloaded, FetchError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..ATTEMPTS {
            match self.download_once(url, path).await {
                Err(error) if error.is_transient() => {}
                other => return other,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.download_once(url, path).await
    }

    async fn download_once(&self, url: &str, path: &Path) -> Result<Downloaded, FetchError> {
        let limit = self.config.max_bytes;
        let too_long = || FetchError::TooLong { url: url.to_owned(), limit };
        let response = self.send_once(Method::GET, url).await?;
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(too_long());
        }
        let modified = modified(&response);
        let mut file = tokio::fs::File::create(path).await?;
        let (mut hasher, mut size_bytes) = (Hasher::new(), 0);
        let mut body = response.bytes_stream();
        while let Some(part) = body.next().await {
            let part = part.map_err(|error| failed(url, &error))?;
            size_bytes += part.len() as u64;
            if size_bytes > limit {
                return Err(too_long());
            }
            hasher.update(&part);
            file.write_all(&part).await?;
        }
        file.flush().await?;
        Ok(Downloaded { digest: hasher.finish(), size_bytes, modified })
    }

    async fn send(&self, method: Method, url: &str) -> Result<Response, FetchError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..ATTEMPTS {
            match self.send_once(method.clone(), url).await {
                Err(error) if error.is_transient() => {}
                other => return other,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.send_once(method, url).await
    }

    async fn send_once(&self, method: Method, url: &str) -> Result<Response, FetchError> {
        let bad = |problem: &str| FetchError::Address {
            url: url.to_owned(),
            problem: problem.to_owned(),
        };
        let parsed = Url::parse(url).map_err(|error| bad(&error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(bad("only http and https are fetched"));
        }
        if !self.config.allow_private_networks && names_private(&parsed) {
            return Err(FetchError::Private(url.to_owned()));
        }
        let mut request = self.http.request(method, parsed);
        if let Some(header) = self.credentials.for_file(url) {
            // Left out when a redirect leads to another server.
            let value = HeaderValue::from_str(&header);
            let mut value = value.map_err(|error| bad(&error.to_string()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let response = request.send().await;
        let response = response.map_err(|error| failed(url, &error))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(FetchError::Status { url: url.to_owned(), status: status.as_u16() }),
        }
    }
}

/// When the server says that a file was changed, in seconds since 1970.
pub(crate) fn modified(response: &Response) -> Option<i64> {
    let value = response.headers().get(LAST_MODIFIED)?;
    let time = httpdate::parse_http_date(value.to_str().ok()?).ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// Whether the host of an address is a number in a private network: no name is resolved for it.
fn names_private(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => !is_public(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => !is_public(IpAddr::V6(address)),
        Some(Host::Domain(_)) => false,
        None => true,
    }
}

/// The last cause says what happened; the outer ones repeat the address.
fn failed(url: &str, error: &reqwest::Error) -> FetchError {
    let mut cause: &dyn std::error::Error = error;
    loop {
        if cause.is::<LeadsToPrivate>() {
            return FetchError::Private(url.to_owned());
        }
        match cause.source() {
            Some(next) => cause = next,
            None => {
                return FetchError::Transport { url: url.to_owned(), message: cause.to_string() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::http::header::LOCATION;
    use axum::response::IntoResponse as _;
    use axum::routing::get;

    /// Says what it was shown, or sends elsewhere.
    async fn mirror(elsewhere: Option<String>) -> String {
        let shown = |headers: axum::http::HeaderMap| async move {
            let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
            value.unwrap_or("nothing").to_owned()
        };
        let leave = move || {
            let there = elsewhere.clone().unwrap_or_default();
            async move { (StatusCode::FOUND, [(LOCATION, there)]).into_response() }
        };
        let router = Router::new().route("/shown", get(shown)).route("/leave", get(leave));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn what_is_for_one_server_is_shown_to_no_other() {
        let other = mirror(None).await;
        let (shown, directory) = (format!("{other}/shown"), tempfile::tempdir().unwrap());
        let server = mirror(Some(shown)).await;
        let host = server.trim_start_matches("http://");
        let secrets = [(format!("HTTP_AUTH_TOKEN_{host}"), b"tok".to_vec())];
        let credentials = Credentials::from_secrets(secrets);
        let fetcher = Fetcher::of_user().unwrap().with_credentials(credentials);
        let path = directory.path().join("file");
        for (path_of_url, expected) in [("shown", "Bearer tok"), ("leave", "nothing")] {
            fetcher.download(&format!("{server}/{path_of_url}"), &path).await.unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), expected, "{path_of_url}");
        }
        fetcher.download(&format!("{other}/shown"), &path).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "nothing");
    }

    async fn server() -> String {
        let redirect = || async { (StatusCode::FOUND, [(LOCATION, "/file")]).into_response() };
        let file = || async {
            let time = "Wed, 21 Oct 2015 07:28:00 GMT";
            ([(ETAG, "\"v1\""), (LAST_MODIFIED, time)], "content").into_response()
        };
        let timed = || async { ([(LAST_MODIFIED, "Wed, 21 Oct 2015 07:28:00 GMT")], "x") };
        let router = Router::new()
            .route("/file", get(file))
            .route("/timed", get(timed))
            .route("/plain", get(|| async { "x" }))
            .route("/long", get(|| async { "x".repeat(2000) }))
            .route("/redirect", get(redirect));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    fn open() -> Fetcher {
        let config =
            FetchConfig { allow_private_networks: true, max_bytes: 1000, ..FetchConfig::default() };
        Fetcher::new(config).unwrap()
    }

    #[tokio::test]
    async fn a_file_comes_with_its_digest_and_time() {
        let (server, directory) = (server().await, tempfile::tempdir().unwrap());
        let path = directory.path().join("file");
        for place in ["file", "redirect"] {
            let made = open().download(&format!("{server}/{place}"), &path).await.unwrap();
            assert_eq!(made.digest, Digest::of(b"content"));
            assert_eq!((made.size_bytes, made.modified), (7, Some(1_445_412_480)));
            assert_eq!(std::fs::read(&path).unwrap(), b"content");
        }
        let validator = |place: &str| {
            let url = format!("{server}/{place}");
            async move { open().validator(&url).await.unwrap() }
        };
        assert_eq!(validator("file").await.unwrap(), "etag \"v1\"");
        assert!(validator("timed").await.unwrap().starts_with("modified Wed"));
        assert_eq!(validator("plain").await, None);
    }

    #[tokio::test]
    async fn what_is_missing_or_too_long_is_refused() {
        let (server, directory) = (server().await, tempfile::tempdir().unwrap());
        let path = directory.path().join("file");
        let get = |place: &str| {
            let (url, path) = (format!("{server}/{place}"), path.clone());
            async move { open().download(&url, &path).await.unwrap_err() }
        };
        assert!(matches!(get("none").await, FetchError::Status { status: 404, .. }));
        assert!(matches!(get("long").await, FetchError::TooLong { .. }));
        let file = open().download("file:///etc/passwd", &path).await.unwrap_err();
        assert!(matches!(file, FetchError::Address { .. }));
    }

    #[tokio::test]
    async fn private_networks_are_not_reached_by_any_name() {
        let (server, directory) = (server().await, tempfile::tempdir().unwrap());
        let path = directory.path().join("file");
        let port = server.rsplit(':').next().unwrap();
        let closed = Fetcher::new(FetchConfig::default()).unwrap();
        for host in
            ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"]
        {
            let url = format!("http://{host}:{port}/file");
            let error = closed.download(&url, &path).await.unwrap_err();
            assert!(matches!(error, FetchError::Private(_)), "{host}: {error}");
        }
        assert!(!path.exists());
    }
}
