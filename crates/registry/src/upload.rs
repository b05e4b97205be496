//! Sending a blob (distribution specification, "Pushing blobs").
//!
//! In one piece where the registry takes that. In chunks where it refuses long bodies, where the
//! configuration says so, or after a long body broke: then a broken connection costs one chunk,
//! since the registry says how much it has.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::Digest;
use futures_util::future::BoxFuture;
use oci::Reference;
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION,
    RANGE,
};
use reqwest::{Method, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_util::io::ReaderStream;

use crate::client::{Client, LONGEST_PAUSE, Request};
use crate::error::RegistryError;

/// Attempts to send one blob, and failures of a chunk in a row that are borne.
const ATTEMPTS: u32 = 5;
/// First pause between attempts; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Length of a chunk where nobody says anything: one is held in memory for each blob under way.
const CHUNK_BYTES: u64 = 8 << 20;
/// Chunks get no shorter than this.
const SHORTEST_CHUNK_BYTES: u64 = 256 << 10;
/// Longest chunk that a registry may insist on.
const LONGEST_CHUNK_BYTES: u64 = 256 << 20;
/// Registries say so how long chunks have to be at least.
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// Bytes from their beginning.
pub(crate) type Source = Pin<Box<dyn AsyncRead + Send>>;
/// What gives them, as often as needed.
pub(crate) type Open<'a> = &'a (dyn Fn() -> BoxFuture<'a, io::Result<Source>> + Send + Sync);

/// A blob to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blob<'a> {
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
    /// A repository of the same registry that has it.
    pub(crate) mount: Option<&'a str>,
}

/// An upload that was begun.
struct Session {
    url: String,
    shortest_chunk: u64,
}

impl Client {
    /// Sends a blob that the repository lacks. Returns the bytes that were sent.
    pub(crate) async fn push_blob(
        &self,
        reference: &Reference,
        blob: Blob<'_>,
        open: Open<'_>,
    ) -> Result<u64, RegistryError> {
        let limit = self.config.max_request_bytes(&reference.registry);
        let mut in_chunks = limit.is_some_and(|limit| blob.size_bytes > limit);
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        loop {
            // Also after a failure: it may have been the answer alone that was lost.
            if self.has_blob(reference, &blob.digest).await? {
                return Ok(0);
            }
            // A mount needs no bytes; where it is refused the answer begins an upload.
            let Some(session) = self.begin_upload(reference, blob).await? else { return Ok(0) };
            let sent = if in_chunks {
                self.send_chunks(reference, session, blob, open).await
            } else {
                self.send_whole(reference, &session, blob, open).await
            };
            let error = match sent {
                Ok(()) => return Ok(blob.size_bytes),
                Err(error) => error,
            };
            let refuses_whole = matches!(error.status(), Some(400 | 405 | 411 | 413 | 501));
            if !in_chunks && refuses_whole {
                in_chunks = true;
                continue;
            }
            if attempt == ATTEMPTS || !may_pass(&error) {
                return Err(error);
            }
            tracing::debug!(%error, attempt, blob = %blob.digest, "sending a blob again");
            in_chunks |= blob.size_bytes > CHUNK_BYTES;
            tokio::time::sleep(error.retry_after().unwrap_or(pause).min(LONGEST_PAUSE)).await;
            attempt += 1;
            pause *= 2;
        }
    }

    async fn has_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        let url = format!("{}/blobs/{digest}", self.repository_url(reference));
        let request = push_request(Method::HEAD, reference, url);
        match self.send_optional(request).await {
            Ok(found) => Ok(found.is_some()),
            // It answers no such question: then it gets the blob again.
            Err(error) if error.status() == Some(405) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Begins an upload; none when the blob could be mounted.
    async fn begin_upload(
        &self,
        reference: &Reference,
        blob: Blob<'_>,
    ) -> Result<Option<Session>, RegistryError> {
        let base = format!("{}/blobs/uploads/", self.repository_url(reference));
        let post = |url: String| {
            let mut request = push_request(Method::POST, reference, url);
            request.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            request
        };
        let mut response = None;
        if let Some(from) = blob.mount {
            let url = format!("{base}?mount={}&from={from}", blob.digest);
            // Who may not read the other repository, or whose registry knows no mounts, uploads.
            response = self.send(Request { also: Some(from), ..post(url) }).await.ok();
        }
        let response = match response {
            Some(response) => response,
            None => self.send(post(base)).await?,
        };
        if response.status() == StatusCode::CREATED {
            return Ok(None);
        }
        let url = location(&response).ok_or_else(|| RegistryError::Invalid {
            registry: reference.registry.clone(),
            what: "the address of an upload".to_owned(),
            problem: "it is missing".to_owned(),
        })?;
        let said = response.headers().get(CHUNK_MIN_LENGTH).and_then(|value| value.to_str().ok());
        let shortest_chunk = said.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Ok(Some(Session { url, shortest_chunk }))
    }

    async fn send_whole(
        &self,
        reference: &Reference,
        session: &Session,
        blob: Blob<'_>,
        open: Open<'_>,
    ) -> Result<(), RegistryError> {
        let reader = open().await.map_err(|error| source_error(blob, error))?;
        let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(reader, 256 << 10));
        let url = with_digest(&session.url, &blob.digest);
        let mut request = push_request(Method::PUT, reference, url);
        request.headers.insert(CONTENT_TYPE, octets());
        self.send_stream(request, blob.size_bytes, body).await?;
        Ok(())
    }

    async fn send_chunks(
        &self,
        reference: &Reference,
        session: Session,
        blob: Blob<'_>,
        open: Open<'_>,
    ) -> Result<(), RegistryError> {
        let limit = self.config.max_request_bytes(&reference.registry).unwrap_or(CHUNK_BYTES);
        let shortest = session.shortest_chunk.clamp(1, LONGEST_CHUNK_BYTES);
        let mut chunk_bytes = limit.min(CHUNK_BYTES).max(shortest);
        let mut pieces = Pieces { blob, open, reader: None, start: 0, held: Bytes::new() };
        let (mut url, mut offset, mut failures) = (session.url, 0, 0);
        while offset < blob.size_bytes {
            let piece = pieces.at(offset, chunk_bytes).await?;
            let end = offset + piece.len() as u64;
            let error = match self.patch(reference, &url, offset, piece).await {
                Ok(response) => {
                    url = location(&response).unwrap_or(url);
                    let has = received(&response).unwrap_or(end).min(end);
                    failures = if has > offset { 0 } else { failures + 1 };
                    offset = has;
                    if failures < ATTEMPTS {
                        continue;
                    }
                    let problem = "it takes no bytes of a chunk".to_owned();
                    let (registry, what) = (reference.registry.clone(), "an answer".to_owned());
                    return Err(RegistryError::Invalid { registry, what, problem });
                }
                Err(error) => error,
            };
            if error.status() == Some(413) && chunk_bytes / 2 >= shortest.max(SHORTEST_CHUNK_BYTES)
            {
                chunk_bytes /= 2;
            } else if failures + 1 < ATTEMPTS
                && (error.is_transient() || error.status() == Some(416))
            {
                let pause = FIRST_PAUSE * 2u32.pow(failures.min(6));
                tokio::time::sleep(error.retry_after().unwrap_or(pause).min(LONGEST_PAUSE)).await;
                failures += 1;
            } else {
                return Err(error);
            }
            // The registry knows best how much of it has arrived.
            let status = self.send(push_request(Method::GET, reference, url.clone())).await?;
            offset = received(&status).unwrap_or(0).min(blob.size_bytes);
            url = location(&status).unwrap_or(url);
        }
        let mut request = push_request(Method::PUT, reference, with_digest(&url, &blob.digest));
        request.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        request.headers.insert(CONTENT_TYPE, octets());
        self.send(request).await?;
        Ok(())
    }

    async fn patch(
        &self,
        reference: &Reference,
        url: &str,
        offset: u64,
        piece: Bytes,
    ) -> Result<Response, RegistryError> {
        let mut request = push_request(Method::PATCH, reference, url.to_owned());
        request.headers.insert(CONTENT_TYPE, octets());
        let last = (offset + piece.len() as u64).saturating_sub(1);
        let range = HeaderValue::from_str(&format!("{offset}-{last}"));
        request.headers.extend(range.ok().map(|range| (CONTENT_RANGE, range)));
        request.body = Some(piece);
        self.send_unrepeated(&request).await
    }
}

/// Pieces of a blob. The last one is kept, and earlier ones are read again: sources cannot seek.
struct Pieces<'a, 'b> {
    blob: Blob<'b>,
    open: Open<'a>,
    reader: Option<Source>,
    /// Where `held` begins; the reader stands at its end.
    start: u64,
    held: Bytes,
}

impl Pieces<'_, '_> {
    async fn at(&mut self, offset: u64, length: u64) -> Result<Bytes, RegistryError> {
        let length = length.min(self.blob.size_bytes - offset);
        let held_end = self.start + self.held.len() as u64;
        if (self.start..held_end).contains(&offset) {
            let from = usize::try_from(offset - self.start).unwrap_or(0);
            let rest = self.held.slice(from..);
            let count = usize::try_from(length).map_or(rest.len(), |length| length.min(rest.len()));
            return Ok(rest.slice(..count));
        }
        let blob = self.blob;
        self.read(offset, held_end, length).await.map_err(|error| source_error(blob, error))
    }

    async fn read(&mut self, offset: u64, position: u64, length: u64) -> io::Result<Bytes> {
        let (mut reader, position) = match self.reader.take() {
            Some(reader) if position <= offset => (reader, position),
            _ => ((self.open)().await?, 0),
        };
        let mut before = (&mut reader).take(offset - position);
        tokio::io::copy(&mut before, &mut tokio::io::sink()).await?;
        let mut bytes = BytesMut::with_capacity(usize::try_from(length).unwrap_or(0));
        let mut piece = (&mut reader).take(length);
        while piece.read_buf(&mut bytes).await? > 0 {}
        if bytes.len() as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.reader = Some(reader);
        (self.start, self.held) = (offset, bytes.freeze());
        Ok(self.held.clone())
    }
}

/// Whether another attempt may work: also when the session is lost or the token has run out.
fn may_pass(error: &RegistryError) -> bool {
    error.is_transient()
        || matches!(error.status(), Some(404 | 416))
        || matches!(error, RegistryError::Denied { .. })
}

fn source_error(blob: Blob<'_>, error: io::Error) -> RegistryError {
    RegistryError::Source(blob.digest.to_string(), error)
}

/// `Range: 0-N`: the bytes that an upload has. Registries say 0-0 when there are none.
fn received(response: &Response) -> Option<u64> {
    let text = response.headers().get(RANGE)?.to_str().ok()?;
    let (_, last) = text.trim().trim_start_matches("bytes=").split_once('-')?;
    let last: u64 = last.parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

fn location(response: &Response) -> Option<String> {
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    Some(response.url().join(location).ok()?.to_string())
}

pub(crate) fn push_request(method: Method, reference: &Reference, url: String) -> Request<'_> {
    Request {
        method,
        host: &reference.registry,
        url,
        repository: &reference.repository,
        actions: "pull,push",
        also: None,
        headers: HeaderMap::new(),
        body: None,
    }
}

fn octets() -> HeaderValue {
    HeaderValue::from_static("application/octet-stream")
}

fn with_digest(url: &str, digest: &Digest) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}digest={digest}")
}
