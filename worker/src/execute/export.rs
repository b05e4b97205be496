//! An export: configuration and manifest put together, pushed or packed.

use std::sync::Arc;
use std::time::Instant;

use api::public::v1::{ImageOptions, LeftName, LogStream};
use api::worker::v1::{
    ExportImage, ExportJob, ExportResult, ExportTarget, ObjectKind, ObjectName, StageOutcome,
};
use common::digest::Hasher;
use common::image::{ImageDocument, Layer};
use common::{BuildId, Digest, Failure, FailureClass};
use layer::Compression;
use oci::Reference;
use oci::archive::{ArchivedImage, Dialect};
use oci::image::AssembledIndex;
use registry::{PushBlob, PushImage};

use super::failure::JobError;
use super::image::{Made, make};
use super::job::Account;
use super::stage::millis;
use super::tags::move_tag;
use crate::content::Pin;
use crate::dispatch::{Held, Worker};
use crate::logs::LogWriter;
use crate::rootfs::mount_readonly;
use crate::transfer::{ensure_blob, ensure_layers, open_blob, upload};

/// Runs an export to its end.
pub(super) async fn run(
    worker: &Arc<Worker>,
    held: &Arc<Held>,
    job: ExportJob,
    log: LogWriter,
    account: &mut Account,
) -> Result<StageOutcome, JobError> {
    let permits = Arc::clone(&worker.permits);
    let _permit = tokio::select! {
        permit = permits.acquire_owned() => permit.map_err(|_| JobError::Stopped)?,
        () = held.cancel.cancelled() => return Err(JobError::Stopped),
    };
    let start = Instant::now();
    let work = export(worker, held, &job, &log, account);
    let exports = tokio::select! {
        exports = work => exports?,
        () = held.cancel.cancelled() => return Err(JobError::Stopped),
    };
    account.timing.upload_millis += millis(start);
    Ok(StageOutcome::Succeeded { layers: Vec::new(), exports })
}

async fn export(
    worker: &Arc<Worker>,
    held: &Held,
    job: &ExportJob,
    log: &LogWriter,
    account: &mut Account,
) -> Result<Vec<ExportResult>, JobError> {
    let mut results = Vec::new();
    let plain = ImageOptions::default();
    for (position, target) in job.targets.iter().enumerate() {
        let options = match target {
            ExportTarget::Push { options, .. }
            | ExportTarget::OciArchive { options, .. }
            | ExportTarget::DockerArchive { options, .. }
            | ExportTarget::DigestOnly { options } => options,
            ExportTarget::RootFs { .. } => &plain,
        };
        let made = make(worker, &held.asker(), job, options).await?;
        let mut result = ExportResult {
            target: u32::try_from(position).unwrap_or(u32::MAX),
            digest: made.digest,
            config_digest: made.config_digest,
            left: Vec::new(),
            archive: None,
            archive_bytes: None,
        };
        let file = match target {
            ExportTarget::DigestOnly { .. } => None,
            ExportTarget::Push { names, by_digest, .. } => {
                for name in names {
                    let (sent, newer) = push(worker, held, &made, name, *by_digest).await?;
                    let mut text = format!("pushed {name}@{} ({sent} bytes sent)", made.digest);
                    if let Some(newer) = newer {
                        text = format!(
                            "pushed {} ({sent} bytes sent); {name} was left at the newer build {newer}",
                            made.digest
                        );
                        result.left.push(LeftName { name: name.clone(), newer });
                    }
                    log.line(0, LogStream::System, text).await;
                }
                None
            }
            ExportTarget::OciArchive { names, .. } => {
                Some(archive(worker, held, &made, names, Dialect::Oci).await?)
            }
            ExportTarget::DockerArchive { names, .. } => {
                Some(archive(worker, held, &made, names, Dialect::Docker).await?)
            }
            ExportTarget::RootFs { split } => {
                Some(root_fs(worker, held, &job.images, *split).await?)
            }
        };
        if let Some(file) = file {
            file.note(&mut result, account);
        }
        results.push(result);
    }
    Ok(results)
}

/// Pushes everything under its digest, then moves the name's tag. Returns the bytes sent, and the
/// newer build that the tag was left at.
async fn push(
    worker: &Arc<Worker>,
    held: &Held,
    made: &Made,
    name: &str,
    by_digest: bool,
) -> Result<(u64, Option<BuildId>), JobError> {
    let reference: Reference = name.parse().map_err(|error| {
        let error: oci::reference::InvalidReference = error;
        Failure::new(FailureClass::User, "invalid-reference", error.to_string())
    })?;
    let untagged = Reference { tag: None, ..reference.clone() };
    let asker = held.asker();
    let open = |layer: Layer| {
        let (worker, asker) = (Arc::clone(worker), asker.clone());
        async move { open_blob(&worker, &asker, &layer).await.map_err(std::io::Error::other) }
    };
    let mut sent = 0;
    for ArchivedImage { image, layers } in &made.images {
        let push = PushImage {
            manifest: image.manifest.clone(),
            manifest_media_type: image.manifest_media_type,
            config: image.config.clone(),
            blobs: layers.iter().map(|layer| PushBlob { layer: layer.clone() }).collect(),
        };
        let pushed = worker.registry.push(&untagged, &push, open).await;
        sent += pushed.map_err(|error| push_failure(&error))?;
    }
    let top = match (&made.index, made.images.first()) {
        (Some(AssembledIndex { index, media_type, .. }), _) => {
            let pushed = worker.registry.push_manifest(&untagged, index, media_type).await;
            pushed.map_err(|error| push_failure(&error))?;
            (index, *media_type)
        }
        (None, Some(ArchivedImage { image, .. })) => (&image.manifest, image.manifest_media_type),
        (None, None) => return Ok((sent, None)),
    };
    if by_digest || reference.tag.is_none() {
        return Ok((sent, None));
    }
    Ok((sent, move_tag(worker, held, name, &reference, top.0, top.1).await?))
}

/// A push is refused for other reasons than a pull: the user's name or rights.
pub(super) fn push_failure(error: &registry::RegistryError) -> Failure {
    let failure = error.failure();
    match failure.code.as_str() {
        "image-not-found" => {
            Failure::new(FailureClass::Registry, "push-refused", error.to_string())
                .with_hint("the registry has no place for this name")
        }
        _ => failure,
    }
}

/// A file that was made and uploaded.
struct Uploaded {
    digest: Digest,
    size_bytes: u64,
    /// Bytes that had to be sent.
    sent: u64,
}

impl Uploaded {
    fn note(&self, result: &mut ExportResult, account: &mut Account) {
        account.uploaded_bytes += self.sent;
        (result.archive, result.archive_bytes) = (Some(self.digest), Some(self.size_bytes));
    }
}

/// Writes the images as an archive and uploads that.
async fn archive(
    worker: &Arc<Worker>,
    held: &Held,
    made: &Made,
    names: &[String],
    dialect: Dialect,
) -> Result<Uploaded, JobError> {
    let asker = held.asker();
    let mut blobs = std::collections::HashMap::new();
    for layer in made.images.iter().flat_map(|image| &image.layers) {
        blobs.insert(layer.blob, ensure_blob(worker, &asker, layer).await?);
    }
    let scratch = worker.content.scratch()?;
    let path = scratch.path().join("archive.tar");
    let (out, images, names) = (path.clone(), made.images.clone(), names.to_vec());
    let index = made.index.clone();
    let (digest, size_bytes) = tokio::task::spawn_blocking(move || {
        let file = std::io::BufWriter::new(std::fs::File::create(&out)?);
        let open = |layer: &Layer| -> std::io::Result<Box<dyn std::io::Read>> {
            let pin: &Pin = blobs.get(&layer.blob).ok_or(std::io::ErrorKind::NotFound)?;
            Ok(Box::new(std::fs::File::open(pin.path())?))
        };
        oci::archive::write_oci_layout(file, &images, index.as_ref(), &names, dialect, open)?;
        let mut hasher = Hasher::new();
        let size_bytes = std::io::copy(&mut std::fs::File::open(&out)?, &mut hasher)?;
        Ok::<_, std::io::Error>((hasher.finish(), size_bytes))
    })
    .await??;
    send(worker, held, &path, digest, size_bytes).await
}

/// Writes the root file systems that the layers make and uploads that. Several, or one if it is
/// asked for, are each in a directory that is named after the platform.
async fn root_fs(
    worker: &Arc<Worker>,
    held: &Held,
    images: &[ExportImage],
    split: bool,
) -> Result<Uploaded, JobError> {
    let scratch = worker.content.scratch()?;
    let (path, root) = (scratch.path().join("rootfs.tar"), scratch.path().join("root"));
    std::fs::create_dir(&root)?;
    let mut places = Vec::new();
    for ExportImage { layers, document } in images {
        let chain = ensure_layers(worker, &held.asker(), layers).await?;
        let place = if split { root.join(directory_name(document)) } else { root.clone() };
        places.push((chain, place));
    }
    let out = path.clone();
    let packed = tokio::task::spawn_blocking(move || {
        let mut mounts = Vec::new();
        for (chain, place) in &places {
            if *place != root {
                make_directory(place)?;
            }
            if !chain.lowers.is_empty() {
                mounts.push(mount_readonly(&chain.lowers, place)?);
            }
        }
        layer::pack_upper(&root, &[], &out, Compression::None).map_err(std::io::Error::other)
    })
    .await??;
    send(worker, held, &path, packed.blob, packed.size_bytes).await
}

/// The name of the directory of a platform's files, as in BuildKit: `linux_arm_v7`.
fn directory_name(document: &ImageDocument) -> String {
    let variant = document.variant.as_deref().unwrap_or_default();
    let parts = [document.os.as_str(), document.architecture.as_str(), variant];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    // An image's own words: they stay in one name.
    parts.join("_").replace(['/', '\0'], "_")
}

/// A directory like any other: the same time everywhere, whoever makes it.
fn make_directory(path: &std::path::Path) -> std::io::Result<()> {
    std::fs::create_dir(path)?;
    std::fs::File::open(path)?.set_modified(std::time::SystemTime::UNIX_EPOCH)
}

async fn send(
    worker: &Worker,
    held: &Held,
    path: &std::path::Path,
    digest: Digest,
    size_bytes: u64,
) -> Result<Uploaded, JobError> {
    let object = ObjectName { kind: ObjectKind::Export, digest, size_bytes };
    let sent = upload(&worker.client, held.lease, vec![(object, path.to_owned())]).await?;
    Ok(Uploaded { digest, size_bytes, sent })
}
