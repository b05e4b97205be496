//! Putting an image together.

use common::Digest;
use common::image::{ImageDocument, Layer};

use crate::manifest::{Descriptor, Manifest};
use crate::media_type;

/// The two documents of an image, as bytes, and their digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssembledImage {
    /// The configuration.
    pub config: Vec<u8>,
    /// Its digest: what Docker calls the image id.
    pub config_digest: Digest,
    /// The manifest.
    pub manifest: Vec<u8>,
    /// Its digest: what registries know the image by.
    pub manifest_digest: Digest,
    /// Its media type.
    pub manifest_media_type: &'static str,
}

/// Writes configuration and manifest of an image. The same input gives the same bytes.
pub fn assemble(document: &ImageDocument, layers: &[Layer]) -> serde_json::Result<AssembledImage> {
    let config = serde_json::to_vec(document)?;
    let config_digest = Digest::of(&config);
    let descriptor = |media_type: &str, digest, size| Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        annotations: None,
        platform: None,
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        config: descriptor(media_type::OCI_CONFIG, config_digest, config.len() as u64),
        layers: layers
            .iter()
            .map(|layer| {
                let kind = media_type::layer_as_oci(&layer.media_type);
                descriptor(kind, layer.blob, layer.size_bytes)
            })
            .collect(),
    };
    let manifest = serde_json::to_vec(&manifest)?;
    let manifest_digest = Digest::of(&manifest);
    let manifest_media_type = media_type::OCI_MANIFEST;
    Ok(AssembledImage { config, config_digest, manifest, manifest_digest, manifest_media_type })
}
