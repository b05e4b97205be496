//! Putting an image together.

use common::Digest;
use common::image::{ImageDocument, Layer};

use crate::manifest::{Descriptor, DescriptorPlatform, Index, Manifest};
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
    /// What it is for.
    pub platform: DescriptorPlatform,
}

/// An index of images, as bytes, and its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssembledIndex {
    /// The index.
    pub index: Vec<u8>,
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: &'static str,
}

/// Writes the index of several images, in their order. The same input gives the same bytes.
pub fn assemble_index(images: &[AssembledImage]) -> serde_json::Result<AssembledIndex> {
    let descriptor = |image: &AssembledImage| Descriptor {
        media_type: image.manifest_media_type.to_owned(),
        digest: image.manifest_digest,
        size: image.manifest.len() as u64,
        annotations: None,
        platform: Some(image.platform.clone()),
    };
    let index = serde_json::to_vec(&Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        manifests: images.iter().map(descriptor).collect(),
    })?;
    let digest = Digest::of(&index);
    Ok(AssembledIndex { index, digest, media_type: media_type::OCI_INDEX })
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
    let platform = DescriptorPlatform {
        architecture: document.architecture.clone(),
        os: document.os.clone(),
        variant: document.variant.clone(),
    };
    Ok(AssembledImage {
        config,
        config_digest,
        manifest,
        manifest_digest,
        manifest_media_type,
        platform,
    })
}
