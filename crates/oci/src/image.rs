//! Putting an image together.

use std::collections::BTreeMap;

use common::Digest;
use common::image::{ImageDocument, Layer, LayerOrigin};

use crate::manifest::{Descriptor, DescriptorPlatform, Index, Manifest};
use crate::media_type;

/// Most layers of an image: what an overlay mount takes.
const MAX_LAYERS: usize = 500;

/// Most addresses of a layer that registries do not hand out, and the longest in bytes.
const MAX_URLS: usize = 16;
const MAX_URL_BYTES: usize = 4096;

/// Names and values.
pub type Annotations = BTreeMap<String, String>;

/// How the documents of an image or an index are written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Style {
    /// With Docker's media types instead of OCI's.
    pub docker: bool,
    /// Annotations of the document.
    pub annotations: Annotations,
    /// Annotations where it is named: in an index or a layout.
    pub descriptor_annotations: Annotations,
}

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
    /// Annotations where it is named.
    pub descriptor_annotations: Annotations,
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
    /// Annotations where it is named.
    pub descriptor_annotations: Annotations,
}

/// Writes the index of several images, in their order. The same input gives the same bytes.
pub fn assemble_index(
    images: &[AssembledImage],
    style: &Style,
) -> serde_json::Result<AssembledIndex> {
    let descriptor = |image: &AssembledImage| Descriptor {
        media_type: image.manifest_media_type.to_owned(),
        digest: image.manifest_digest,
        size: image.manifest.len() as u64,
        urls: None,
        annotations: present(&image.descriptor_annotations),
        platform: Some(image.platform.clone()),
    };
    let media_type = if style.docker { media_type::DOCKER_LIST } else { media_type::OCI_INDEX };
    let index = serde_json::to_vec(&Index {
        schema_version: 2,
        media_type: Some(media_type.to_owned()),
        manifests: images.iter().map(descriptor).collect(),
        annotations: present(&style.annotations),
    })?;
    let digest = Digest::of(&index);
    let descriptor_annotations = style.descriptor_annotations.clone();
    Ok(AssembledIndex { index, digest, media_type, descriptor_annotations })
}

/// Writes configuration and manifest of an image. The same input gives the same bytes.
pub fn assemble(
    document: &ImageDocument,
    layers: &[Layer],
    style: &Style,
) -> serde_json::Result<AssembledImage> {
    let config = serde_json::to_vec(document)?;
    let config_digest = Digest::of(&config);
    let descriptor = |media_type: &str, digest, size| Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        urls: None,
        annotations: None,
        platform: None,
    };
    let (manifest_media_type, config_media_type) = if style.docker {
        (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG)
    } else {
        (media_type::OCI_MANIFEST, media_type::OCI_CONFIG)
    };
    let layer_media_type = |layer: &Layer| -> String {
        let oci = media_type::layer_as_oci(&layer.media_type);
        if style.docker { media_type::layer_as_docker(oci) } else { oci }.to_owned()
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(manifest_media_type.to_owned()),
        config: descriptor(config_media_type, config_digest, config.len() as u64),
        layers: layers
            .iter()
            .map(|layer| Descriptor {
                urls: match &layer.origin {
                    LayerOrigin::Foreign { urls, .. } => Some(urls.clone()),
                    _ => None,
                },
                ..descriptor(&layer_media_type(layer), layer.blob, layer.size_bytes)
            })
            .collect(),
        annotations: present(&style.annotations),
    };
    let manifest = serde_json::to_vec(&manifest)?;
    let manifest_digest = Digest::of(&manifest);
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
        descriptor_annotations: style.descriptor_annotations.clone(),
    })
}

/// The layers that a manifest and its configuration name together, lowest first.
pub fn layers(
    manifest: &Manifest,
    document: &ImageDocument,
    origin: &LayerOrigin,
) -> Result<Vec<Layer>, String> {
    let diff_ids = &document.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        let (layers, ids) = (manifest.layers.len(), diff_ids.len());
        return Err(format!("{layers} layers, but the configuration lists {ids}"));
    }
    if diff_ids.len() > MAX_LAYERS {
        return Err(format!("{} layers are more than {MAX_LAYERS}", diff_ids.len()));
    }
    let pairs = manifest.layers.iter().zip(diff_ids);
    pairs
        .map(|(descriptor, diff_id)| {
            let origin = if media_type::is_foreign(&descriptor.media_type) {
                foreign(descriptor, origin)?
            } else {
                origin.clone()
            };
            Ok(Layer {
                diff_id: *diff_id,
                blob: descriptor.digest,
                size_bytes: descriptor.size,
                media_type: descriptor.media_type.clone(),
                origin,
            })
        })
        .collect()
}

/// Where a layer is that registries do not hand out.
fn foreign(layer: &Descriptor, origin: &LayerOrigin) -> Result<LayerOrigin, String> {
    let digest = layer.digest;
    let LayerOrigin::Registry { repository } = origin else {
        return Err(format!("layer {digest} is foreign: only images of registries may have such"));
    };
    let urls = layer.urls.clone().unwrap_or_default();
    let is_long = |url: &String| url.len() > MAX_URL_BYTES;
    if urls.len() > MAX_URLS || urls.iter().any(is_long) {
        return Err(format!("layer {digest} has too many or too long addresses"));
    }
    if urls.is_empty() {
        return Err(format!("layer {digest} is foreign and says no address where it is"));
    }
    Ok(LayerOrigin::Foreign { repository: repository.clone(), urls })
}

fn present(annotations: &Annotations) -> Option<Annotations> {
    (!annotations.is_empty()).then(|| annotations.clone())
}
