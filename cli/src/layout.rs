//! OCI image layouts on this machine (OCI image specification, `image-layout.md`): their images are
//! read and checked here, and the farm gets the layers that it lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use api::public::v1::{ContextUpload, LayoutImage, PackOffer};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use client::public::Client;
use common::digest::Hasher;
use common::image::{ImageDocument, LayerOrigin};
use common::{Digest, Platform, ProjectName};
use futures_util::{StreamExt as _, TryStreamExt as _};
use oci::manifest::{Descriptor, DescriptorPlatform, Index, Kind, Manifest};

use crate::exit::CliError;

/// Longest document that is read, in bytes.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// Most images of one index.
const MAX_IMAGES: usize = 64;
/// Layers that are sent at once.
const PARALLEL: usize = 6;
/// Where an index names what it lists.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// `DIR[:TAG][@DIGEST]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayoutSource {
    directory: PathBuf,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl LayoutSource {
    /// Reads what stands after `oci-layout://`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let is_directory = |text: &str| Path::new(text).is_dir();
        let (rest, digest) = match text.rsplit_once('@').filter(|_| !is_directory(text)) {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| format!("{digest} is no sha256 digest"))?))
            }
            None => (text, None),
        };
        let tag =
            rest.rsplit_once(':').filter(|(_, tag)| !tag.contains('/') && !is_directory(rest));
        let (directory, tag) = tag.map_or((rest, None), |(path, tag)| (path, Some(tag.to_owned())));
        if directory.is_empty() || tag.as_ref().is_some_and(String::is_empty) {
            return Err("oci-layout://DIR[:TAG][@DIGEST] is expected".to_owned());
        }
        Ok(Self { directory: PathBuf::from(directory), tag, digest })
    }
}

/// What of a layout a build gets.
#[derive(Debug)]
struct Offer {
    images: Vec<LayoutImage>,
    /// The layers' sizes in bytes.
    blobs: BTreeMap<Digest, u64>,
}

/// Whom an image is for.
#[derive(Debug)]
enum Listed {
    /// There is no index: for everyone.
    Alone,
    /// Its index names a platform.
    For(Platform),
    /// Its index does not, its configuration does.
    AsItSays,
}

/// Reads a layout and, where the build needs them, sends the layers that the farm lacks. Of an index
/// only the images for the `wanted` platforms, if it has any.
pub(crate) async fn send(
    client: &Client,
    project: &ProjectName,
    source: LayoutSource,
    wanted: Option<BTreeSet<Platform>>,
    sends: bool,
) -> Result<Vec<LayoutImage>, CliError> {
    let directory = source.directory.clone();
    let failed = |error: &dyn std::fmt::Display| CliError::file(&directory, error);
    let (layout, offer) = tokio::task::spawn_blocking(move || {
        let layout = Layout::open(&source.directory)?;
        let offer = layout.offer(&source, wanted.as_ref())?;
        Ok::<_, String>((layout, offer))
    })
    .await
    .map_err(|error| failed(&error))?
    .map_err(|error| failed(&error))?;
    if !sends {
        return Ok(offer.images);
    }
    let offers = offer.blobs.iter();
    let upload = ContextUpload {
        project: project.clone(),
        manifest: None,
        packs: Vec::new(),
        blobs: offers
            .map(|(digest, size)| PackOffer { digest: *digest, size_bytes: *size })
            .collect(),
    };
    let missing = client.negotiate(&upload).await?.missing;
    let (layout, blobs, failed) = (&layout, &offer.blobs, &failed);
    futures_util::stream::iter(missing)
        .map(|target| async move {
            let Some(size) = blobs.get(&target.digest).copied() else { return Ok(()) };
            let (checked, digest) = (layout.clone(), target.digest);
            let path = tokio::task::spawn_blocking(move || checked.checked_blob(&digest, size))
                .await
                .map_err(|error| failed(&error))?
                .map_err(|error| failed(&error))?;
            client.upload(&target, &path, size).await.map_err(CliError::from)
        })
        .buffer_unordered(PARALLEL)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(offer.images)
}

/// A layout, by its directory without links.
#[derive(Debug, Clone)]
struct Layout(PathBuf);

impl Layout {
    fn open(directory: &Path) -> Result<Self, String> {
        directory.canonicalize().map(Self).map_err(|error| error.to_string())
    }

    /// A regular file of the layout: links may lead about in it, not out of it.
    fn file(&self, name: &str) -> Result<(PathBuf, u64), String> {
        let failed = |error: std::io::Error| format!("{name}: {error}");
        let path = self.0.join(name).canonicalize().map_err(failed)?;
        if !path.starts_with(&self.0) {
            return Err(format!("{name} leads out of the layout"));
        }
        let metadata = path.symlink_metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(format!("{name} is no file"));
        }
        Ok((path, metadata.len()))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, String> {
        let failed = |error: std::io::Error| format!("{name}: {error}");
        let (path, _) = self.file(name)?;
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(format!("{name} is longer than {MAX_DOCUMENT_BYTES} bytes"));
        }
        Ok(bytes)
    }

    /// A document that a digest names.
    fn addressed(&self, digest: &Digest) -> Result<Vec<u8>, String> {
        let name = blob_name(digest);
        let bytes = self.document(&name)?;
        if Digest::of(&bytes) != *digest {
            return Err(format!("{name} is damaged: its digest is another"));
        }
        Ok(bytes)
    }

    /// The file of a layer, when it is what its name says.
    fn checked_blob(&self, digest: &Digest, size_bytes: u64) -> Result<PathBuf, String> {
        let name = blob_name(digest);
        let failed = |error: std::io::Error| format!("{name}: {error}");
        let path = self.sized_blob(digest, size_bytes)?;
        let mut file = File::open(&path).map_err(failed)?.take(size_bytes + 1);
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = file.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
        }
        if hasher.finish() != *digest {
            return Err(format!("{name} is damaged: its digest is another"));
        }
        Ok(path)
    }

    fn sized_blob(&self, digest: &Digest, size_bytes: u64) -> Result<PathBuf, String> {
        let name = blob_name(digest);
        let (path, length) = self.file(&name)?;
        if length != size_bytes {
            return Err(format!("{name} is damaged: {length} bytes instead of {size_bytes}"));
        }
        Ok(path)
    }

    fn offer(
        &self,
        source: &LayoutSource,
        wanted: Option<&BTreeSet<Platform>>,
    ) -> Result<Offer, String> {
        let digest = match source.digest {
            Some(digest) => digest,
            None => self.named(source.tag.as_deref())?,
        };
        let bytes = self.addressed(&digest)?;
        let mut offer = Offer { images: Vec::new(), blobs: BTreeMap::new() };
        if !is_index(&digest, &bytes)? {
            self.image(&digest, &bytes, Listed::Alone, &mut offer)?;
            return Ok(offer);
        }
        let index = index(&blob_name(&digest), &bytes)?;
        let has_wanted = wanted.is_some_and(|wanted| {
            let entries = index.manifests.iter();
            let has = entries.filter(|entry| self.0.join(blob_name(&entry.digest)).exists());
            let mut has = has.filter_map(|entry| entry.platform.as_ref()?.platform());
            has.any(|platform| wanted.contains(&platform))
        });
        for entry in &index.manifests {
            let platform = entry.platform.as_ref().and_then(DescriptorPlatform::platform);
            // Attestations are for "unknown", and copies of one platform alone lack the others.
            let is_unknown = platform.as_ref().is_some_and(|platform| platform.os == "unknown");
            let is_image = entry.platform.is_none() || platform.is_some();
            if is_unknown || !is_image || !self.0.join(blob_name(&entry.digest)).exists() {
                continue;
            }
            let is_wanted = |platform: &Platform| wanted.is_none_or(|all| all.contains(platform));
            if has_wanted && !platform.as_ref().is_none_or(is_wanted) {
                continue;
            }
            let bytes = self.addressed(&entry.digest)?;
            let listed = platform.map_or(Listed::AsItSays, Listed::For);
            self.image(&entry.digest, &bytes, listed, &mut offer)?;
        }
        if offer.images.is_empty() {
            return Err(format!("the index {digest} has no image that is there"));
        }
        Ok(offer)
    }

    /// What `index.json` names so; without a name, `latest` or the only one.
    fn named(&self, tag: Option<&str>) -> Result<Digest, String> {
        let index = index("index.json", &self.document("index.json")?)?;
        let name = |entry: &Descriptor| entry.annotations.as_ref()?.get(REF_NAME).cloned();
        let all: BTreeSet<Digest> = index.manifests.iter().map(|entry| entry.digest).collect();
        let wanted = tag.unwrap_or("latest");
        let found: BTreeSet<Digest> = index
            .manifests
            .iter()
            .filter(|entry| name(entry).as_deref() == Some(wanted))
            .map(|entry| entry.digest)
            .collect();
        let mut choice = if tag.is_none() && found.is_empty() { &all } else { &found }.iter();
        match (choice.next(), choice.next()) {
            (Some(digest), None) => Ok(*digest),
            (None, _) | (Some(_), Some(_)) => {
                let has: Vec<String> = index
                    .manifests
                    .iter()
                    .map(|entry| name(entry).unwrap_or_else(|| format!("@{}", entry.digest)))
                    .collect();
                let has = if has.is_empty() { "nothing".to_owned() } else { has.join(", ") };
                let asked = tag.map_or("no tag was given".to_owned(), |tag| format!("tag {tag:?}"));
                Err(format!("index.json names no single image ({asked}): it has {has}"))
            }
        }
    }

    /// Adds an image.
    fn image(
        &self,
        digest: &Digest,
        bytes: &[u8],
        listed: Listed,
        offer: &mut Offer,
    ) -> Result<(), String> {
        let name = blob_name(digest);
        if is_index(digest, bytes)? {
            return Err(format!("{name} is an index within an index, which is not supported"));
        }
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|error| format!("{name}: {error}"))?;
        let config = self.addressed(&manifest.config.digest)?;
        let config_name = blob_name(&manifest.config.digest);
        let document: ImageDocument =
            serde_json::from_slice(&config).map_err(|error| format!("{config_name}: {error}"))?;
        let layers = oci::image::layers(&manifest, &document, &LayerOrigin::Brought)
            .map_err(|problem| format!("{name}: {problem}"))?;
        for layer in layers {
            self.sized_blob(&layer.blob, layer.size_bytes)?;
            offer.blobs.insert(layer.blob, layer.size_bytes);
        }
        let platform = match listed {
            Listed::Alone => None,
            Listed::For(platform) => Some(platform),
            Listed::AsItSays => {
                Some(platform_of(&document).ok_or(format!("{name} is for no platform"))?)
            }
        };
        offer.images.push(LayoutImage {
            platform,
            manifest_base64: BASE64_STANDARD.encode(bytes),
            config_base64: BASE64_STANDARD.encode(&config),
        });
        Ok(())
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn platform_of(document: &ImageDocument) -> Option<Platform> {
    let variant = document.variant.as_ref().filter(|variant| !variant.is_empty());
    let variant = variant.map(|variant| format!("/{variant}")).unwrap_or_default();
    format!("{}/{}{variant}", document.os, document.architecture).parse().ok()
}

fn is_index(digest: &Digest, bytes: &[u8]) -> Result<bool, String> {
    let name = blob_name(digest);
    let kind: Kind = serde_json::from_slice(bytes)
        .map_err(|error| format!("{name} is neither manifest nor index: {error}"))?;
    if kind.schema_version != 2 {
        return Err(format!("{name} has the schema {}", kind.schema_version));
    }
    Ok(kind.is_index())
}

fn index(name: &str, bytes: &[u8]) -> Result<Index, String> {
    let index: Index = serde_json::from_slice(bytes).map_err(|error| format!("{name}: {error}"))?;
    if index.manifests.len() > MAX_IMAGES {
        return Err(format!("{name} lists more than {MAX_IMAGES} images"));
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn put(root: &Path, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        std::fs::create_dir_all(root.join("blobs/sha256")).unwrap();
        std::fs::write(root.join(blob_name(&digest)), bytes).unwrap();
        json!({"mediaType": "x", "digest": digest, "size": bytes.len()})
    }

    /// An image with one layer; its descriptor.
    fn image(root: &Path, layer: &str) -> Value {
        let config = json!({"os": "linux", "architecture": "arm64", "rootfs":
            {"type": "layers", "diff_ids": [Digest::of(layer.as_bytes())]}});
        let config = put(root, config.to_string().as_bytes());
        let layer = put(root, layer.as_bytes());
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
        put(root, manifest.to_string().as_bytes())
    }

    fn list(root: &Path, entries: &[(&Value, &str)]) {
        let named = |(entry, name): &(&Value, &str)| {
            let mut entry = (*entry).clone();
            if !name.is_empty() {
                entry["annotations"] = json!({ REF_NAME: name });
            }
            entry
        };
        let manifests: Vec<Value> = entries.iter().map(named).collect();
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        std::fs::write(root.join("index.json"), index.to_string()).unwrap();
    }

    /// The only layer of what is offered.
    fn offered(root: &Path, rest: &str) -> Result<Digest, String> {
        let source = LayoutSource::parse(&format!("{}{rest}", root.display()))?;
        let offer = Layout::open(&source.directory)?.offer(&source, None)?;
        assert_eq!(offer.images.len(), 1);
        Ok(*offer.blobs.keys().next().unwrap())
    }

    #[test]
    fn an_image_is_found_by_tag_by_digest_or_alone() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let (one, two) = (image(root, "one"), image(root, "two"));
        let (first, second) = (Digest::of(b"one"), Digest::of(b"two"));
        list(root, &[(&one, "")]);
        assert_eq!(offered(root, ""), Ok(first));
        list(root, &[(&one, "v1"), (&two, "v2")]);
        assert_eq!(offered(root, ":v2"), Ok(second));
        let digest = one["digest"].as_str().unwrap();
        assert_eq!(offered(root, &format!("@{digest}")), Ok(first));
        assert_eq!(offered(root, &format!(":v2@{digest}")), Ok(first));
        for (rest, says) in [("", "no tag was given): it has v1, v2"), (":v3", "it has v1, v2")] {
            let problem = offered(root, rest).unwrap_err();
            assert!(problem.contains(says), "{problem}");
        }
        list(root, &[(&one, "v1"), (&two, "latest")]);
        assert_eq!(offered(root, ""), Ok(second));
        // One image under two names is one.
        list(root, &[(&one, "v1"), (&one, "v2")]);
        assert_eq!(offered(root, ""), Ok(first));
    }

    #[test]
    fn an_index_offers_the_images_that_are_there() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let mut entries = [image(root, "a"), image(root, "b"), image(root, "c"), image(root, "d")];
        entries[0]["platform"] = json!({"os": "linux", "architecture": "amd64"});
        entries[2]["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        entries[3]["platform"] = json!({"os": "linux", "architecture": "s390x"});
        let gone: Digest = entries[3]["digest"].as_str().unwrap().parse().unwrap();
        std::fs::remove_file(root.join(blob_name(&gone))).unwrap();
        let index = json!({"schemaVersion": 2, "manifests": entries}).to_string();
        list(root, &[(&put(root, index.as_bytes()), "")]);
        let source = LayoutSource::parse(root.to_str().unwrap()).unwrap();
        let offered = |wanted: Option<&[&str]>| {
            let wanted = wanted.map(|all| all.iter().map(|one| one.parse().unwrap()).collect());
            let offer = Layout::open(root).unwrap().offer(&source, wanted.as_ref()).unwrap();
            assert_eq!(offer.blobs.len(), offer.images.len());
            let platforms = offer.images.iter().flat_map(|image| &image.platform);
            platforms.map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(offered(None), ["linux/amd64", "linux/arm64"]);
        // What of the entries says nothing may be for any platform.
        assert_eq!(offered(Some(&["linux/amd64"])), ["linux/amd64", "linux/arm64"]);
        assert_eq!(offered(Some(&["linux/riscv64"])), ["linux/amd64", "linux/arm64"]);
        entries[1]["platform"] = json!({"os": "linux", "architecture": "arm64"});
        let index = json!({"schemaVersion": 2, "manifests": entries}).to_string();
        list(root, &[(&put(root, index.as_bytes()), "")]);
        let damaged = root.join(blob_name(&Digest::of(b"a")));
        assert_eq!(offered(Some(&["linux/amd64"])), ["linux/amd64"]);
        // The others are not even read.
        std::fs::remove_file(damaged).unwrap();
        assert_eq!(offered(Some(&["linux/arm64"])), ["linux/arm64"]);
    }

    #[test]
    fn damaged_and_hostile_layouts_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let entry = image(root, "layer");
        list(root, &[(&entry, "")]);
        let layer = root.join(blob_name(&Digest::of(b"layer")));
        let layout = Layout::open(root).unwrap();
        let digest = Digest::of(b"layer");
        assert!(layout.checked_blob(&digest, 5).is_ok());
        // As long, and something else: seen when it would be sent.
        std::fs::write(&layer, "Layer").unwrap();
        assert!(layout.checked_blob(&digest, 5).unwrap_err().contains("its digest is another"));
        std::fs::write(&layer, "longer").unwrap();
        assert!(offered(root, "").unwrap_err().contains("6 bytes instead of 5"));
        // A link out of the layout, to the right bytes.
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(outside.path(), "layer").unwrap();
        std::fs::remove_file(&layer).unwrap();
        std::os::unix::fs::symlink(outside.path(), &layer).unwrap();
        assert!(offered(root, "").unwrap_err().contains("leads out of the layout"));
        std::fs::remove_file(&layer).unwrap();
        std::fs::create_dir(&layer).unwrap();
        assert!(offered(root, "").unwrap_err().contains("is no file"));
        let manifest: Digest = entry["digest"].as_str().unwrap().parse().unwrap();
        std::fs::write(root.join(blob_name(&manifest)), "{}").unwrap();
        assert!(offered(root, "").unwrap_err().contains("its digest is another"));
        // Digests are no paths.
        let tricky = json!({"mediaType": "x", "digest": "sha256:../../../etc/passwd", "size": 1});
        list(root, &[(&tricky, "")]);
        assert!(offered(root, "").unwrap_err().contains("index.json: "));
        let length = usize::try_from(MAX_DOCUMENT_BYTES).unwrap() + 1;
        std::fs::write(root.join("index.json"), " ".repeat(length)).unwrap();
        assert!(offered(root, "").unwrap_err().contains("is longer than"));
        std::fs::remove_file(root.join("index.json")).unwrap();
        assert!(offered(root, "").unwrap_err().contains("index.json: "));
    }
}
