//! Images that come with a build, from layouts of the client's.
//!
//! The planner takes them for images like others: each has a reference that no Dockerfile and no
//! registry can have, and what is known of it comes from the request.

use std::collections::BTreeMap;

use api::public::v1::{BuildRequest, LayoutImage, NamedContextSource};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::image::{ImageDocument, LayerOrigin, ResolvedImage};
use common::{Digest, Failure, FailureClass, Platform, ProjectName};
use dockerfile::context_name;
use oci::manifest::{Kind, Manifest};

use super::App;
use super::plan_build::{Packs, PlanError};

/// Longest layer in bytes: what one PUT takes.
pub(super) const MAX_BLOB_BYTES: u64 = 5 << 30;
/// Most images of one layout.
const MAX_IMAGES: usize = 64;
/// Longest manifest or configuration in bytes.
const MAX_DOCUMENT_BYTES: usize = 4 << 20;

/// The reference of the image that has this name in the request.
pub(super) fn reference_of(name: &str) -> String {
    format!("oci-layout://{}", context_name(name))
}

/// Refuses what could never be planned.
pub(super) fn check(images: &[LayoutImage]) -> Result<(), String> {
    if images.is_empty() || images.len() > MAX_IMAGES {
        return Err(format!("a layout has 1 to {MAX_IMAGES} images"));
    }
    images.iter().try_for_each(|image| read("", image).map(drop))
}

/// The images of a request's layouts, by reference.
#[derive(Debug)]
pub(super) struct Layouts(BTreeMap<String, Vec<(Option<Platform>, ResolvedImage)>>);

impl Layouts {
    pub(super) fn of(request: &BuildRequest) -> Result<Self, Failure> {
        let mut layouts = BTreeMap::new();
        for (name, source) in &request.contexts {
            let NamedContextSource::Layout { images } = source else { continue };
            let reference = reference_of(name);
            let read = |image: &LayoutImage| {
                read(&reference, image).map(|known| (image.platform.clone(), known))
            };
            let images: Result<Vec<_>, String> = images.iter().map(read).collect();
            let images = images.map_err(|problem| {
                Failure::new(FailureClass::User, "bad-image", format!("context {name}: {problem}"))
            })?;
            layouts.insert(reference, images);
        }
        Ok(Self(layouts))
    }

    /// The image of a layout for one platform; none where the reference is no layout's.
    pub(super) fn find(
        &self,
        reference: &str,
        platform: &Platform,
    ) -> Option<Result<&ResolvedImage, Failure>> {
        let images = self.0.get(reference)?;
        let serves =
            |of: &Option<Platform>| of.as_ref().is_none_or(|platform_of| platform_of == platform);
        let found = images.iter().find(|(of, _)| serves(of));
        Some(found.map(|(_, image)| image).ok_or_else(|| {
            let has: Vec<_> =
                images.iter().flat_map(|(of, _)| of).map(ToString::to_string).collect();
            let message = format!("{reference} has no image for {platform}");
            Failure::new(FailureClass::User, "image-platform", message)
                .with_hint(format!("it has {}", has.join(", ")))
        }))
    }
}

fn read(reference: &str, image: &LayoutImage) -> Result<ResolvedImage, String> {
    let bytes = decode("manifest", &image.manifest_base64)?;
    let bad = |error: serde_json::Error| format!("the manifest: {error}");
    let kind: Kind = serde_json::from_slice(&bytes).map_err(bad)?;
    if kind.schema_version != 2 || kind.is_index() {
        return Err("the manifest is none of an image".to_owned());
    }
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(bad)?;
    let config = decode("configuration", &image.config_base64)?;
    if Digest::of(&config) != manifest.config.digest {
        return Err("the configuration is not the one that the manifest names".to_owned());
    }
    let document: ImageDocument =
        serde_json::from_slice(&config).map_err(|error| format!("the configuration: {error}"))?;
    let layers = oci::image::layers(&manifest, &document, &LayerOrigin::Brought)?;
    if let Some(layer) = layers.iter().find(|layer| layer.size_bytes > MAX_BLOB_BYTES) {
        return Err(format!("layer {} is longer than {MAX_BLOB_BYTES} bytes", layer.blob));
    }
    let digest = Digest::of(&bytes);
    Ok(ResolvedImage { reference: reference.to_owned(), digest, document, layers })
}

fn decode(what: &str, text: &str) -> Result<Vec<u8>, String> {
    let bytes = BASE64_STANDARD
        .decode(text)
        .map_err(|error| format!("the {what} is not base64: {error}"))?;
    if bytes.len() > MAX_DOCUMENT_BYTES {
        return Err(format!("the {what} is longer than {MAX_DOCUMENT_BYTES} bytes"));
    }
    Ok(bytes)
}

impl App {
    /// Makes sure that an image's layers have arrived, where they are needed.
    pub(super) async fn check_brought(
        &self,
        project: &ProjectName,
        image: &ResolvedImage,
        packs: Packs,
    ) -> Result<(), PlanError> {
        if packs == Packs::NotNeeded {
            return Ok(());
        }
        let blobs = image.layers.iter().map(|layer| (layer.blob, layer.size_bytes)).collect();
        let arrived = self.arrived(project, "blob", blobs).await?;
        self.store.mark_present(project, &arrived, None).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(config: &str, manifest_config: &str, platform: Option<&str>) -> LayoutImage {
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{}","size":1}},"layers":
               [{{"mediaType":"l","digest":"{}","size":7}}]}}"#,
            Digest::of(manifest_config.as_bytes()),
            Digest::of(b"layer"),
        );
        LayoutImage {
            platform: platform.map(|text| text.parse().unwrap()),
            manifest_base64: BASE64_STANDARD.encode(manifest),
            config_base64: BASE64_STANDARD.encode(config),
        }
    }

    fn config(layers: &[Digest]) -> String {
        let ids: Vec<_> = layers.iter().map(|layer| format!("\"{layer}\"")).collect();
        let ids = ids.join(",");
        format!(r#"{{"config":{{"Env":["A=1"]}},"rootfs":{{"type":"layers","diff_ids":[{ids}]}}}}"#)
    }

    #[test]
    fn an_image_is_what_its_manifest_says() {
        let good = config(&[Digest::of(b"diff")]);
        let found = read("r", &image(&good, &good, None)).unwrap();
        assert_eq!(found.document.config.env, ["A=1"]);
        let layer = &found.layers[0];
        assert_eq!((layer.diff_id, layer.blob), (Digest::of(b"diff"), Digest::of(b"layer")));
        assert_eq!((layer.size_bytes, &layer.origin), (7, &LayerOrigin::Brought));
        for (bad, says) in [
            (image(&good, "other", None), "not the one that the manifest names"),
            (image(&config(&[]), &config(&[]), None), "1 layers, but the configuration lists 0"),
            (LayoutImage { config_base64: "?".into(), ..image(&good, &good, None) }, "not base64"),
            (
                LayoutImage {
                    manifest_base64: BASE64_STANDARD
                        .encode(r#"{"schemaVersion":2,"manifests":[]}"#),
                    ..image(&good, &good, None)
                },
                "none of an image",
            ),
        ] {
            let problem = check(&[bad]).unwrap_err();
            assert!(problem.contains(says), "{problem}");
        }
        assert!(check(&[]).is_err());
        assert!(check(&vec![image(&good, &good, None); 65]).is_err());
    }

    #[test]
    fn the_platform_chooses_and_an_image_alone_serves_all() {
        let good = config(&[Digest::of(b"diff")]);
        let layouts = |platforms: &[Option<&str>]| {
            let read = |of: Option<&str>| {
                let image = image(&good, &good, of);
                (image.platform.clone(), read("r", &image).unwrap())
            };
            Layouts([("r".to_owned(), platforms.iter().copied().map(read).collect())].into())
        };
        let (arm, amd): (Platform, Platform) =
            ("linux/arm64/v8".parse().unwrap(), "linux/amd64".parse().unwrap());
        let both = layouts(&[Some("linux/amd64"), Some("linux/arm64")]);
        assert!(both.find("r", &arm).unwrap().is_ok() && both.find("r", &amd).unwrap().is_ok());
        let one = layouts(&[Some("linux/amd64")]);
        let failure = one.find("r", &arm).unwrap().unwrap_err();
        assert_eq!(failure.hint.as_deref(), Some("it has linux/amd64"));
        assert!(layouts(&[None]).find("r", &arm).unwrap().is_ok());
        assert!(one.find("other", &amd).is_none());
    }
}
