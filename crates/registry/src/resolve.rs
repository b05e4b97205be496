//! From a reference to a digest, a configuration and layers.

use common::image::{ImageDocument, LayerOrigin, ResolvedImage};
use common::{Digest, Platform};
use oci::manifest::{Index, Kind, Manifest};
use oci::{Reference, media_type};
use reqwest::header::{ACCEPT, HeaderValue};

use crate::client::{Client, Request, read};
use crate::error::RegistryError;

/// Longest manifest, as registries commonly have it, in bytes.
const MAX_MANIFEST_BYTES: usize = 4 << 20;
/// Longest configuration in bytes.
const MAX_CONFIG_BYTES: usize = 8 << 20;

impl Client {
    /// Looks an image up, at mirrors first. Every answer is checked against its digest.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage, RegistryError> {
        let mut last = RegistryError::NotFound(reference.to_string());
        for host in self.config.hosts(&reference.registry) {
            match self.resolve_at(&host, reference, platform).await {
                Ok(image) => return Ok(image),
                // A mirror that lacks the image and an origin that cannot be reached: what the user
                // can act on is that the image is not there.
                Err(RegistryError::NotFound(_)) => {
                    last = RegistryError::NotFound(reference.to_string());
                }
                Err(RegistryError::Unreachable { .. })
                    if host != self.config.hosts(&reference.registry)[0] => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn resolve_at(
        &self,
        host: &str,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage, RegistryError> {
        let invalid = |what: &str, problem: String| RegistryError::Invalid {
            registry: host.to_owned(),
            what: what.to_owned(),
            problem,
        };
        let name = reference.manifest_name();
        let mut bytes = self.manifest(host, reference, &name, reference.digest.as_ref()).await?;
        let mut digest = Digest::of(&bytes);
        let kind: Kind = serde_json::from_slice(&bytes)
            .map_err(|error| invalid("a manifest", error.to_string()))?;
        if kind.schema_version != 2 {
            let problem = "it has the old schema 1, which is not supported: push the image again";
            return Err(invalid(&format!("a manifest of {reference}"), problem.to_owned()));
        }
        if kind.is_index() {
            let index: Index = serde_json::from_slice(&bytes)
                .map_err(|error| invalid("an index", error.to_string()))?;
            let chosen = index
                .manifests
                .iter()
                .find(|entry| entry.platform.as_ref().is_some_and(|p| p.serves(platform)))
                .ok_or_else(|| RegistryError::NoPlatform {
                    reference: reference.to_string(),
                    platform: platform.to_string(),
                })?;
            digest = chosen.digest;
            bytes = self.manifest(host, reference, &digest.to_string(), Some(&digest)).await?;
        }
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| invalid("a manifest", error.to_string()))?;
        let url = format!(
            "{}/{}/blobs/{}",
            self.config.address(host),
            reference.repository,
            manifest.config.digest
        );
        let response = self.send(Request::get(host, url, &reference.repository)).await?;
        let config =
            read(response, MAX_CONFIG_BYTES).await.map_err(|p| invalid("a configuration", p))?;
        if Digest::of(&config) != manifest.config.digest {
            return Err(invalid("a configuration", "its digest is wrong".to_owned()));
        }
        let document: ImageDocument = serde_json::from_slice(&config)
            .map_err(|error| invalid("a configuration", error.to_string()))?;
        let origin = LayerOrigin::Registry { repository: reference.name() };
        let layers = oci::image::layers(&manifest, &document, &origin)
            .map_err(|problem| invalid("a manifest", problem))?;
        Ok(ResolvedImage { reference: reference.to_string(), digest, document, layers })
    }

    async fn manifest(
        &self,
        host: &str,
        reference: &Reference,
        name: &str,
        expected: Option<&Digest>,
    ) -> Result<Vec<u8>, RegistryError> {
        let url =
            format!("{}/{}/manifests/{name}", self.config.address(host), reference.repository);
        let mut request = Request::get(host, url, &reference.repository);
        for kind in [
            media_type::OCI_INDEX,
            media_type::OCI_MANIFEST,
            media_type::DOCKER_LIST,
            media_type::DOCKER_MANIFEST,
        ] {
            request.headers.append(ACCEPT, HeaderValue::from_static(kind));
        }
        let invalid = |problem| RegistryError::Invalid {
            registry: host.to_owned(),
            what: "a manifest".to_owned(),
            problem,
        };
        let response = self.send(request).await?;
        let said = response.headers().get("docker-content-digest");
        let said = said.and_then(|value| value.to_str().ok()?.parse::<Digest>().ok());
        let bytes = read(response, MAX_MANIFEST_BYTES).await.map_err(invalid)?;
        if said.is_some_and(|said| Digest::of(&bytes) != said) {
            return Err(invalid("it is not what its header says".to_owned()));
        }
        if expected.is_some_and(|expected| Digest::of(&bytes) != *expected) {
            return Err(invalid("its digest is wrong".to_owned()));
        }
        Ok(bytes)
    }
}
