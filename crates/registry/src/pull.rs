//! Pulling blobs. A connection that breaks is no reason to begin anew.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use common::Digest;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use reqwest::header::{CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Response, StatusCode};

use crate::client::{Client, Request, split_repository};
use crate::error::RegistryError;

/// Broken connections in a row, without a byte between them, that are borne.
const ATTEMPTS: u32 = 5;
/// First pause after a broken connection; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

impl Client {
    /// The bytes of a blob of `repository` (with registry, such as `docker.io/library/alpine`). What
    /// is left after a broken connection is asked for again. Whoever reads them checks the digest.
    pub async fn pull_blob(
        &self,
        repository: &str,
        digest: &Digest,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, RegistryError> {
        let (registry, path) = split_repository(repository);
        let missing = || RegistryError::LayerMissing {
            repository: repository.to_owned(),
            layer: digest.to_string(),
        };
        let mut last = None;
        for host in self.config.hosts(registry) {
            let url = format!("{}/{path}/blobs/{digest}", self.config.address(&host));
            let pull = Pull { client: self.clone(), host, path: path.to_owned(), url };
            match pull.open(0).await {
                Ok(response) => return Ok(Body::new(pull, response).stream()),
                Err(RegistryError::NotFound(_)) => last = Some(missing()),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(missing))
    }
}

/// Where a blob is.
struct Pull {
    client: Client,
    host: String,
    path: String,
    url: String,
}

impl Pull {
    async fn open(&self, offset: u64) -> Result<Response, RegistryError> {
        let mut request = Request::get(&self.host, self.url.clone(), &self.path);
        if offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={offset}-"));
            request.headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        self.client.send(request).await
    }
}

/// A blob that is being read.
struct Body {
    pull: Pull,
    bytes: Option<BoxStream<'static, reqwest::Result<Bytes>>>,
    /// Bytes that were handed on.
    offset: u64,
    /// Bytes at the beginning of this answer that were handed on before.
    skip: u64,
    /// Length of the blob, where it was said.
    length: Option<u64>,
    failures: u32,
}

impl Body {
    fn new(pull: Pull, response: Response) -> Self {
        let length = response.content_length();
        let bytes = Some(response.bytes_stream().boxed());
        Self { pull, bytes, offset: 0, skip: 0, length, failures: 0 }
    }

    fn stream(self) -> BoxStream<'static, io::Result<Bytes>> {
        futures_util::stream::try_unfold(self, |mut body| async move {
            Ok(body.next().await?.map(|bytes| (bytes, body)))
        })
        .boxed()
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let Some(bytes) = &mut self.bytes else {
                self.reopen().await?;
                continue;
            };
            match bytes.next().await {
                Some(Ok(chunk)) => {
                    let seen =
                        usize::try_from(self.skip).map_or(chunk.len(), |n| n.min(chunk.len()));
                    self.skip -= seen as u64;
                    let chunk = chunk.slice(seen..);
                    if chunk.is_empty() {
                        continue;
                    }
                    self.offset += chunk.len() as u64;
                    self.failures = 0;
                    return Ok(Some(chunk));
                }
                None if self.length.is_none_or(|length| self.offset >= length) => return Ok(None),
                broken => {
                    self.failures += 1;
                    if self.failures > ATTEMPTS {
                        let error = broken.and_then(Result::err).map(io::Error::other);
                        return Err(error.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()));
                    }
                    tracing::debug!(offset = self.offset, url = self.pull.url, "a download broke");
                    self.bytes = None;
                }
            }
        }
    }

    /// Asks for what is left.
    async fn reopen(&mut self) -> io::Result<()> {
        tokio::time::sleep(FIRST_PAUSE * 2u32.pow(self.failures.saturating_sub(1).min(6))).await;
        let response = self.pull.open(self.offset).await.map_err(io::Error::other)?;
        self.skip = if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            let start = range.and_then(|text| {
                text.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse::<u64>().ok()
            });
            match start {
                Some(start) if start <= self.offset => self.offset - start,
                _ => return Err(io::Error::other("the registry answered with another range")),
            }
        } else {
            // It knows no ranges.
            self.offset
        };
        self.bytes = Some(response.bytes_stream().boxed());
        Ok(())
    }
}
