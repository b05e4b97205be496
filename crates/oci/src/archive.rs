//! OCI image layouts as one tar file (OCI image specification, `image-layout.md`).

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use common::Digest;
use common::image::Layer;
use serde_json::json;

use crate::image::{Annotations, AssembledImage, AssembledIndex};

/// An image with its layers, lowest first.
#[derive(Debug, Clone)]
pub struct ArchivedImage {
    /// Its documents.
    pub image: AssembledImage,
    /// Its layers.
    pub layers: Vec<Layer>,
}

/// What is beside the layout in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Nothing.
    Oci,
    /// `manifest.json`, which `docker load` reads; of the first image.
    Docker,
}

/// Writes images as a layout. The layout names their index where there is one, else the image. The same input gives the
/// same bytes: entries have no time and no owner.
pub fn write_oci_layout(
    writer: impl Write,
    images: &[ArchivedImage],
    index: Option<&AssembledIndex>,
    names: &[String],
    dialect: Dialect,
    mut blob: impl FnMut(&Layer) -> io::Result<Box<dyn Read>>,
) -> io::Result<()> {
    let mut archive = tar::Builder::new(writer);
    for directory in ["blobs/", "blobs/sha256/"] {
        let mut header = header(tar::EntryType::Directory, 0, 0o755);
        archive.append_data(&mut header, directory, io::empty())?;
    }
    let mut written = BTreeSet::new();
    let mut document = |archive: &mut tar::Builder<_>, digest: Digest, bytes: &[u8]| {
        // Two platforms may share a blob.
        if !written.insert(digest) {
            return Ok(());
        }
        append(archive, &blob_path(&digest), bytes.len() as u64, bytes)
    };
    for ArchivedImage { image, .. } in images {
        document(&mut archive, image.config_digest, &image.config)?;
        document(&mut archive, image.manifest_digest, &image.manifest)?;
    }
    let top = match (index, images) {
        (Some(index), _) => {
            document(&mut archive, index.digest, &index.index)?;
            Top {
                media_type: index.media_type,
                digest: index.digest,
                size: index.index.len(),
                annotations: &index.descriptor_annotations,
            }
        }
        (None, [ArchivedImage { image, .. }, ..]) => Top {
            media_type: image.manifest_media_type,
            digest: image.manifest_digest,
            size: image.manifest.len(),
            annotations: &image.descriptor_annotations,
        },
        (None, []) => return Err(io::Error::other("an archive of no image")),
    };
    for layer in images.iter().flat_map(|image| &image.layers) {
        // The same layer may be there twice: an empty one, for example.
        if written.insert(layer.blob) {
            append(&mut archive, &blob_path(&layer.blob), layer.size_bytes, blob(layer)?)?;
        }
    }
    let text = layout_index(&top, names).to_string();
    append(&mut archive, "index.json", text.len() as u64, text.as_bytes())?;
    if let (Dialect::Docker, Some(first)) = (dialect, images.first()) {
        let text = docker_manifest(first, names).to_string();
        append(&mut archive, "manifest.json", text.len() as u64, text.as_bytes())?;
    }
    let layout = json!({"imageLayoutVersion": "1.0.0"}).to_string();
    append(&mut archive, "oci-layout", layout.len() as u64, layout.as_bytes())?;
    archive.into_inner()?.flush()
}

/// The list of `docker save`: where configuration and layers lie, and the image's names.
fn docker_manifest(image: &ArchivedImage, names: &[String]) -> serde_json::Value {
    let layers: Vec<String> = image.layers.iter().map(|layer| blob_path(&layer.blob)).collect();
    // Docker Hub's names are shown short.
    let short = |name: &String| {
        let name = name.strip_prefix("docker.io/").unwrap_or(name);
        name.strip_prefix("library/").unwrap_or(name).to_owned()
    };
    let tags: Vec<String> = names.iter().map(short).collect();
    json!([{"Config": blob_path(&image.image.config_digest), "RepoTags": tags, "Layers": layers}])
}

/// What the layout is about.
struct Top<'a> {
    media_type: &'static str,
    digest: Digest,
    size: usize,
    annotations: &'a Annotations,
}

fn layout_index(top: &Top<'_>, names: &[String]) -> serde_json::Value {
    let descriptor = |name: Option<&String>| {
        let mut descriptor =
            json!({"mediaType": top.media_type, "digest": top.digest, "size": top.size});
        let mut annotations = top.annotations.clone();
        if let Some(name) = name {
            let tag = name.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'));
            let tag = tag.unwrap_or("latest").to_owned();
            annotations.insert("io.containerd.image.name".to_owned(), name.clone());
            annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag);
        }
        if !annotations.is_empty() {
            descriptor["annotations"] = json!(annotations);
        }
        descriptor
    };
    let manifests: Vec<_> = match names {
        [] => vec![descriptor(None)],
        names => names.iter().map(|name| descriptor(Some(name))).collect(),
    };
    json!({
        "schemaVersion": 2,
        "mediaType": crate::media_type::OCI_INDEX,
        "manifests": manifests,
    })
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    path: &str,
    size: u64,
    reader: impl Read,
) -> io::Result<()> {
    let mut header = header(tar::EntryType::Regular, size, 0o644);
    archive.append_data(&mut header, path, reader.take(size))
}
