//! Pushing an image: blobs that are missing, then the manifest.

use std::future::Future;
use std::io;

use bytes::Bytes;
use common::Digest;
use common::image::{Layer, LayerOrigin};
use futures_util::{StreamExt as _, TryStreamExt as _};
use oci::Reference;
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use crate::client::{Client, Request, split_repository};
use crate::error::RegistryError;

/// Blobs that are sent at once.
const PARALLEL: usize = 4;
/// Attempts to send one blob.
const ATTEMPTS: u32 = 3;

/// A layer to push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushBlob {
    /// The layer.
    pub layer: Layer,
}

/// An image to push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushImage {
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// Its media type.
    pub manifest_media_type: &'static str,
    /// The configuration's bytes.
    pub config: Vec<u8>,
    /// Every layer that the manifest names.
    pub blobs: Vec<PushBlob>,
}

impl Client {
    /// Pushes an image under one reference. Blobs that the repository has are not sent; those that
    /// another repository of the same registry has are mounted. `open` gives the bytes of a layer.
    /// Returns what was sent, in bytes.
    pub async fn push<F, R>(
        &self,
        reference: &Reference,
        image: &PushImage,
        open: impl Fn(Layer) -> F + Sync,
    ) -> Result<u64, RegistryError>
    where
        F: Future<Output = io::Result<R>> + Send,
        R: AsyncRead + Send + 'static,
    {
        let config = Bytes::from(image.config.clone());
        let config_sent = self.push_bytes(reference, config).await?;
        let sent: Vec<u64> = futures_util::stream::iter(image.blobs.clone())
            .map(|blob| self.push_blob(reference, blob.layer, &open))
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        self.push_manifest(reference, &image.manifest, image.manifest_media_type).await?;
        Ok(config_sent + sent.iter().sum::<u64>())
    }

    /// Puts a manifest, or an index of manifests that the repository has, under the reference's tag;
    /// without a tag, under its digest.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        manifest: &[u8],
        media_type: &'static str,
    ) -> Result<(), RegistryError> {
        let name = reference.tag.clone().unwrap_or_else(|| Digest::of(manifest).to_string());
        let url = format!("{}/manifests/{name}", self.repository_url(reference));
        let mut request = push_request(Method::PUT, reference, url);
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        request.body = Some(Bytes::copy_from_slice(manifest));
        self.send(request).await?;
        Ok(())
    }

    fn repository_url(&self, reference: &Reference) -> String {
        format!("{}/{}", self.config.address(&reference.registry), reference.repository)
    }

    async fn has_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        let url = format!("{}/blobs/{digest}", self.repository_url(reference));
        let request = push_request(Method::HEAD, reference, url);
        Ok(self.send_optional(request).await?.is_some())
    }

    async fn push_bytes(&self, reference: &Reference, bytes: Bytes) -> Result<u64, RegistryError> {
        let digest = Digest::of(&bytes);
        if self.has_blob(reference, &digest).await? {
            return Ok(0);
        }
        let length = bytes.len() as u64;
        let url = self.begin_upload(reference, None).await?;
        if let Some(url) = url {
            let mut request = push_request(Method::PUT, reference, with_digest(&url, &digest));
            request.headers.insert(CONTENT_TYPE, octets());
            request.body = Some(bytes);
            self.send(request).await?;
        }
        Ok(length)
    }

    async fn push_blob<F, R>(
        &self,
        reference: &Reference,
        layer: Layer,
        open: &(impl Fn(Layer) -> F + Sync),
    ) -> Result<u64, RegistryError>
    where
        F: Future<Output = io::Result<R>> + Send,
        R: AsyncRead + Send + 'static,
    {
        if self.has_blob(reference, &layer.blob).await? {
            return Ok(0);
        }
        let mut attempt = 1;
        loop {
            // A mount needs no bytes; where it is refused the answer begins an upload.
            let Some(url) = self.begin_upload(reference, Some(&layer)).await? else { return Ok(0) };
            let source = |error| RegistryError::Source(layer.blob.to_string(), error);
            let reader = open(layer.clone()).await.map_err(source)?;
            let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(reader, 256 << 10));
            let mut request = push_request(Method::PUT, reference, with_digest(&url, &layer.blob));
            request.headers.insert(CONTENT_TYPE, octets());
            match self.send_stream(request, layer.size_bytes, body).await {
                Ok(_) => return Ok(layer.size_bytes),
                Err(error) if error.is_transient() && attempt < ATTEMPTS => {
                    tracing::warn!(%error, attempt, "sending a layer again");
                    tokio::time::sleep(std::time::Duration::from_millis(300 * u64::from(attempt)))
                        .await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Begins an upload and gives its address; none when the blob could be mounted.
    async fn begin_upload(
        &self,
        reference: &Reference,
        layer: Option<&Layer>,
    ) -> Result<Option<String>, RegistryError> {
        let base = format!("{}/blobs/uploads/", self.repository_url(reference));
        let mount = layer.and_then(|layer| match &layer.origin {
            LayerOrigin::Registry { repository } => {
                let (registry, path) = split_repository(repository);
                let mirrored = self.config.hosts(registry).contains(&reference.registry);
                (mirrored && path != reference.repository)
                    .then(|| format!("{base}?mount={}&from={path}", layer.blob))
            }
            LayerOrigin::Farm => None,
        });
        let mut request = push_request(Method::POST, reference, mount.unwrap_or(base));
        request.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let response = self.send(request).await?;
        if response.status() == reqwest::StatusCode::CREATED {
            return Ok(None);
        }
        let invalid = || RegistryError::Invalid {
            registry: reference.registry.clone(),
            what: "the address of an upload".to_owned(),
            problem: "it is missing".to_owned(),
        };
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let url = response.url().join(location.ok_or_else(invalid)?).map_err(|_| invalid())?;
        Ok(Some(url.to_string()))
    }
}

fn push_request(method: Method, reference: &Reference, url: String) -> Request<'_> {
    Request {
        method,
        host: &reference.registry,
        url,
        repository: &reference.repository,
        actions: "pull,push",
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
