//! Pushing an image: blobs that are missing, then the manifest.

use std::future::Future;
use std::io;

use bytes::Bytes;
use common::Digest;
use common::image::{Layer, LayerOrigin};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _};
use oci::Reference;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use tokio::io::AsyncRead;

use crate::client::{Client, split_repository};
use crate::error::RegistryError;
use crate::upload::{Blob, Source, push_request};

/// Blobs that are sent at once.
const PARALLEL: usize = 4;

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
    /// another repository of the same registry has are mounted; foreign layers stay where they are.
    /// `open` gives the bytes of a layer.
    /// Returns what was sent, in bytes.
    pub async fn push<F, R>(
        &self,
        reference: &Reference,
        image: &PushImage,
        open: impl Fn(Layer) -> F + Send + Sync,
    ) -> Result<u64, RegistryError>
    where
        F: Future<Output = io::Result<R>> + Send,
        R: AsyncRead + Send + 'static,
    {
        let config = Bytes::from(image.config.clone());
        let blob =
            Blob { digest: Digest::of(&config), size_bytes: config.len() as u64, mount: None };
        let open_config = || -> BoxFuture<'_, io::Result<Source>> {
            let reader: Source = Box::pin(io::Cursor::new(config.clone()));
            Box::pin(async { Ok(reader) })
        };
        let config_sent = self.push_blob(reference, blob, &open_config).await?;
        let sent: Vec<u64> = futures_util::stream::iter(image.blobs.clone())
            .map(|blob| self.push_layer(reference, blob.layer, &open))
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        self.push_manifest(reference, &image.manifest, image.manifest_media_type).await?;
        Ok(config_sent + sent.iter().sum::<u64>())
    }

    async fn push_layer<F, R>(
        &self,
        reference: &Reference,
        layer: Layer,
        open: &(impl Fn(Layer) -> F + Send + Sync),
    ) -> Result<u64, RegistryError>
    where
        F: Future<Output = io::Result<R>> + Send,
        R: AsyncRead + Send + 'static,
    {
        let mount = match &layer.origin {
            LayerOrigin::Registry { repository } => {
                let (registry, path) = split_repository(repository);
                let is_here = self.config.hosts(registry).contains(&reference.registry);
                (is_here && path != reference.repository).then_some(path)
            }
            LayerOrigin::Foreign { .. } => return Ok(0),
            LayerOrigin::Farm | LayerOrigin::Brought => None,
        };
        let blob = Blob { digest: layer.blob, size_bytes: layer.size_bytes, mount };
        let open_layer = || -> BoxFuture<'_, io::Result<Source>> {
            let opening = open(layer.clone());
            Box::pin(async move {
                let reader: Source = Box::pin(opening.await?);
                Ok(reader)
            })
        };
        self.push_blob(reference, blob, &open_layer).await
    }

    /// Puts a manifest, or an index of manifests that the repository has, under the reference's tag;
    /// without a tag, under its digest. Then the registry is asked whether it has it.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        manifest: &[u8],
        media_type: &'static str,
    ) -> Result<(), RegistryError> {
        let digest = Digest::of(manifest);
        let name = reference.tag.clone().unwrap_or_else(|| digest.to_string());
        let url = format!("{}/manifests/{name}", self.repository_url(reference));
        let mut request = push_request(Method::PUT, reference, url);
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        request.body = Some(Bytes::copy_from_slice(manifest));
        self.send(request).await?;
        self.verify(reference, &digest, media_type).await
    }

    /// Checks that a manifest has arrived.
    async fn verify(
        &self,
        reference: &Reference,
        digest: &Digest,
        media_type: &'static str,
    ) -> Result<(), RegistryError> {
        let url = format!("{}/manifests/{digest}", self.repository_url(reference));
        let mut found = None;
        for method in [Method::HEAD, Method::GET] {
            let mut request = push_request(method, reference, url.clone());
            request.headers.insert(ACCEPT, HeaderValue::from_static(media_type));
            found = match self.send_optional(request).await {
                Ok(found) => found,
                Err(error) if error.status() == Some(405) => continue,
                Err(error) => return Err(error),
            };
            break;
        }
        let wrong = |problem: &str| RegistryError::Invalid {
            registry: reference.registry.clone(),
            what: format!("an answer about {}@{digest}", reference.name()),
            problem: problem.to_owned(),
        };
        let found = found.ok_or_else(|| wrong("the manifest is not there after the push"))?;
        let said = found.headers().get("docker-content-digest");
        let said = said.and_then(|value| value.to_str().ok()?.parse::<Digest>().ok());
        match said {
            Some(said) if said != *digest => Err(wrong("it names another digest")),
            _ => Ok(()),
        }
    }

    pub(crate) fn repository_url(&self, reference: &Reference) -> String {
        format!("{}/{}", self.config.address(&reference.registry), reference.repository)
    }
}
