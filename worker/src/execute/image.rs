//! Images put together for an output: layers in the form that it wants, then the documents.

use std::fs::File;
use std::sync::{Arc, PoisonError};

use api::public::v1::{Annotation, AnnotationPlace, ImageOptions, LayerCompression};
use api::worker::v1::{ExportImage, ExportJob};
use common::image::{Layer, LayerOrigin};
use common::{Digest, Failure, FailureClass, Platform};
use futures_util::{StreamExt as _, TryStreamExt as _};
use layer::{Compression, Recompress};
use oci::archive::ArchivedImage;
use oci::image::{Annotations, AssembledIndex, Style, assemble, assemble_index};

use super::failure::JobError;
use crate::content::{Pin, Right};
use crate::dispatch::{Asker, Worker};
use crate::transfer::ensure_blob;

/// Layers that are brought into another form at once: each uses all processors.
const PARALLEL: usize = 2;
/// Layers whose other forms are remembered.
const MAX_FORMS: usize = 10_000;

/// The images of a job, put together, and their index where there are several.
pub(super) struct Made {
    pub(super) images: Vec<ArchivedImage>,
    pub(super) index: Option<AssembledIndex>,
    /// What the whole is known by.
    pub(super) digest: Digest,
    /// The configuration of the first image.
    pub(super) config_digest: Digest,
    /// Keep layers in the store that are nowhere else.
    _pins: Vec<Pin>,
}

/// How the layer crate names a form.
pub(super) fn compression(wanted: LayerCompression) -> Compression {
    match wanted {
        LayerCompression::Gzip => Compression::Gzip,
        LayerCompression::Zstd => Compression::Zstd,
        LayerCompression::Uncompressed => Compression::None,
    }
}

fn failed(message: String) -> Failure {
    Failure::new(FailureClass::Infrastructure, "export-failed", message)
}

/// Puts the images of a job together.
pub(super) async fn make(
    worker: &Arc<Worker>,
    asker: &Asker,
    job: &ExportJob,
    options: &ImageOptions,
) -> Result<Made, JobError> {
    let (mut images, mut pins) = (Vec::new(), Vec::new());
    for ExportImage { layers, document } in &job.images {
        let made: Vec<(Layer, Option<Pin>)> = futures_util::stream::iter(layers.clone())
            .map(|layer| in_form(worker, asker, layer, options, job.source_date_epoch))
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        let (layers, kept): (Vec<Layer>, Vec<_>) = made.into_iter().unzip();
        pins.extend(kept.into_iter().flatten());
        let mut document = document.clone();
        document.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
        let variant = document.variant.as_deref().unwrap_or_default();
        let name = format!("{}/{}/{variant}", document.os, document.architecture);
        let platform = name.trim_end_matches('/').parse::<Platform>().ok();
        let style = style(
            options,
            AnnotationPlace::Manifest,
            AnnotationPlace::ManifestDescriptor,
            platform.as_ref(),
        );
        let image = assemble(&document, &layers, &style).map_err(|e| failed(e.to_string()))?;
        images.push(ArchivedImage { image, layers });
    }
    let Some(first) = images.first().map(|made| made.image.clone()) else {
        return Err(failed("an export of no image".to_owned()).into());
    };
    let mut index = None;
    if images.len() > 1 {
        let all: Vec<_> = images.iter().map(|made| made.image.clone()).collect();
        let style = style(options, AnnotationPlace::Index, AnnotationPlace::IndexDescriptor, None);
        index = Some(assemble_index(&all, &style).map_err(|error| failed(error.to_string()))?);
    }
    let digest = index.as_ref().map_or(first.manifest_digest, |index| index.digest);
    let config_digest = first.config_digest;
    Ok(Made { images, index, digest, config_digest, _pins: pins })
}

/// How a document is written that is for one platform, or for all.
fn style(
    options: &ImageOptions,
    own: AnnotationPlace,
    descriptor: AnnotationPlace,
    platform: Option<&Platform>,
) -> Style {
    let at = |place: AnnotationPlace| -> Annotations {
        // What is said of one platform counts more than what is said of all.
        let said = |of_one: bool| {
            options.annotations.iter().filter(move |annotation| {
                annotation.place == place && annotation.platform.is_some() == of_one
            })
        };
        let fits = |annotation: &&Annotation| {
            annotation.platform.is_none() || annotation.platform.as_ref() == platform
        };
        let all = said(false).chain(said(true)).filter(fits);
        all.map(|annotation| (annotation.key.clone(), annotation.value.clone())).collect()
    };
    Style {
        docker: options.docker_media_types,
        annotations: at(own),
        descriptor_annotations: at(descriptor),
    }
}

/// A layer in the form that an output wants. Layers of base images stay as they are, unless it is
/// asked for: then the registry need not be sent what it has. Those that are made here always have
/// the form that is wanted, however they lie in the cache: so the image is the same everywhere.
async fn in_form(
    worker: &Arc<Worker>,
    asker: &Asker,
    layer: Layer,
    options: &ImageOptions,
    epoch: Option<i64>,
) -> Result<(Layer, Option<Pin>), JobError> {
    let is_ours = layer.origin == LayerOrigin::Farm;
    let wish = Recompress {
        compression: compression(options.compression),
        level: options.compression_level,
        latest: epoch
            .filter(|_| options.rewrite_timestamp && is_ours)
            .map(|seconds| u64::try_from(seconds).unwrap_or(0)),
    };
    let has_form = Compression::of_media_type(&layer.media_type) == Some(wish.compression);
    let is_foreign = matches!(layer.origin, LayerOrigin::Foreign { .. });
    let may_change = is_ours || (options.force_compression && !is_foreign);
    let is_wanted = (has_form && wish.level.is_none()) || !may_change;
    if is_wanted && wish.latest.is_none() {
        return Ok((layer, None));
    }
    let key = (layer.blob, wish);
    let own = Right::of_project(&asker.project);
    if worker.content.has_had(&layer.blob, &Right::of(&asker.project, &layer.origin)) {
        let forms = worker.forms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = forms.get(&key)
            && let Some(pin) = worker.content.find_blob(&known.blob)
        {
            worker.content.note_had(&known.blob, &own);
            return Ok((known.clone(), Some(pin)));
        }
    }
    let source = ensure_blob(worker, asker, &layer).await?;
    let scratch = worker.content.scratch()?;
    let out = scratch.path().join("blob");
    let (place, diff_id) = (out.clone(), layer.diff_id);
    let packed = tokio::task::spawn_blocking(move || {
        layer::recompress(File::open(source.path())?, &diff_id, &place, wish)
    })
    .await?
    .map_err(|error| failed(format!("layer {}: {error}", layer.blob)))?;
    let pin = worker.content.commit_blob(&out, &packed.blob)?;
    worker.content.note_had(&packed.blob, &own);
    let made = Layer {
        diff_id: packed.diff_id,
        blob: packed.blob,
        size_bytes: packed.size_bytes,
        media_type: packed.media_type.to_owned(),
        origin: LayerOrigin::Farm,
    };
    let mut forms = worker.forms.lock().unwrap_or_else(PoisonError::into_inner);
    if forms.len() >= MAX_FORMS {
        forms.clear();
    }
    forms.insert(key, made.clone());
    Ok((made, Some(pin)))
}
