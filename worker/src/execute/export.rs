//! An export: configuration and manifest put together, pushed or packed.

use std::sync::Arc;
use std::time::Instant;

use api::public::v1::LogStream;
use api::worker::v1::{
    ExportImage, ExportJob, ExportResult, ExportTarget, ObjectKind, ObjectName, StageOutcome,
};
use common::digest::Hasher;
use common::image::Layer;
use common::{Digest, Failure, FailureClass};
use oci::Reference;
use oci::archive::{ArchivedImage, Dialect};
use oci::image::{AssembledIndex, assemble, assemble_index};
use registry::{PushBlob, PushImage};

use super::failure::JobError;
use super::job::Account;
use super::stage::millis;
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

/// The images of a job, put together, and their index where there are several.
struct Made {
    images: Vec<ArchivedImage>,
    index: Option<AssembledIndex>,
}

fn make(job: &ExportJob) -> Result<Made, serde_json::Error> {
    let image = |image: &ExportImage| {
        let layers = image.layers.clone();
        Ok(ArchivedImage { image: assemble(&image.document, &layers)?, layers })
    };
    let images: Vec<ArchivedImage> =
        job.images.iter().map(image).collect::<Result<_, serde_json::Error>>()?;
    let all: Vec<_> = images.iter().map(|made| made.image.clone()).collect();
    let index = (all.len() > 1).then(|| assemble_index(&all)).transpose()?;
    Ok(Made { images, index })
}

impl Made {
    /// What the whole is known by.
    fn digest(&self) -> Option<Digest> {
        let first = self.images.first().map(|made| made.image.manifest_digest);
        self.index.as_ref().map(|index| index.digest).or(first)
    }
}

async fn export(
    worker: &Arc<Worker>,
    held: &Held,
    job: &ExportJob,
    log: &LogWriter,
    account: &mut Account,
) -> Result<Vec<ExportResult>, JobError> {
    let failed =
        |message: String| Failure::new(FailureClass::Infrastructure, "export-failed", message);
    let made = make(job).map_err(|error| failed(error.to_string()))?;
    let (Some(digest), Some(first)) = (made.digest(), made.images.first()) else {
        return Err(failed("an export of no image".to_owned()).into());
    };
    let config_digest = first.image.config_digest;
    let mut results = Vec::new();
    for (position, target) in job.targets.iter().enumerate() {
        let mut result = ExportResult {
            target: u32::try_from(position).unwrap_or(u32::MAX),
            digest,
            config_digest,
            archive: None,
            archive_bytes: None,
        };
        match target {
            ExportTarget::DigestOnly => {}
            ExportTarget::Push { names } => {
                for name in names {
                    let sent = push(worker, held, &made, name).await?;
                    let text = format!("pushed {name}@{digest} ({sent} bytes sent)");
                    log.line(0, LogStream::System, text).await;
                }
            }
            ExportTarget::OciArchive { names } => {
                let file = archive(worker, held, &made, names, Dialect::Oci).await?;
                file.note(&mut result, account);
            }
            ExportTarget::DockerArchive { names } => {
                let file = archive(worker, held, &made, names, Dialect::Docker).await?;
                file.note(&mut result, account);
            }
            ExportTarget::RootFs => {
                let file = root_fs(worker, held, &first.layers).await?;
                file.note(&mut result, account);
            }
        }
        results.push(result);
    }
    Ok(results)
}

/// Pushes everything under one name. Returns the bytes sent.
async fn push(worker: &Arc<Worker>, held: &Held, made: &Made, name: &str) -> Result<u64, JobError> {
    let reference: Reference = name.parse().map_err(|error| {
        let error: oci::reference::InvalidReference = error;
        Failure::new(FailureClass::User, "invalid-reference", error.to_string())
    })?;
    let lease = held.lease;
    let open = |layer: Layer| {
        let worker = Arc::clone(worker);
        async move { open_blob(&worker, lease, &layer).await.map_err(std::io::Error::other) }
    };
    // The images of an index have no name of their own.
    let of_image = match &made.index {
        Some(_) => Reference { tag: None, ..reference.clone() },
        None => reference.clone(),
    };
    let mut sent = 0;
    for ArchivedImage { image, layers } in &made.images {
        let push = PushImage {
            manifest: image.manifest.clone(),
            manifest_media_type: image.manifest_media_type,
            config: image.config.clone(),
            blobs: layers.iter().map(|layer| PushBlob { layer: layer.clone() }).collect(),
        };
        let pushed = worker.registry.push(&of_image, &push, open).await;
        sent += pushed.map_err(|error| push_failure(&error))?;
    }
    if let Some(AssembledIndex { index, media_type, .. }) = &made.index {
        let pushed = worker.registry.push_manifest(&reference, index, media_type).await;
        pushed.map_err(|error| push_failure(&error))?;
    }
    Ok(sent)
}

/// A push is refused for other reasons than a pull: the user's name or rights.
fn push_failure(error: &registry::RegistryError) -> Failure {
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
    let mut blobs = std::collections::HashMap::new();
    for layer in made.images.iter().flat_map(|image| &image.layers) {
        blobs.insert(layer.blob, ensure_blob(worker, held.lease, layer).await?);
    }
    let scratch = worker.content.scratch()?;
    let path = scratch.path().join("archive.tar");
    let (out, images, names) = (path.clone(), made.images.clone(), names.to_vec());
    let (digest, size_bytes) = tokio::task::spawn_blocking(move || {
        let file = std::io::BufWriter::new(std::fs::File::create(&out)?);
        let open = |layer: &Layer| -> std::io::Result<Box<dyn std::io::Read>> {
            let pin: &Pin = blobs.get(&layer.blob).ok_or(std::io::ErrorKind::NotFound)?;
            Ok(Box::new(std::fs::File::open(pin.path())?))
        };
        oci::archive::write_oci_layout(file, &images, &names, dialect, open)?;
        let mut hasher = Hasher::new();
        let size_bytes = std::io::copy(&mut std::fs::File::open(&out)?, &mut hasher)?;
        Ok::<_, std::io::Error>((hasher.finish(), size_bytes))
    })
    .await??;
    send(worker, held, &path, digest, size_bytes).await
}

/// Writes the root file system that the layers make and uploads that.
async fn root_fs(
    worker: &Arc<Worker>,
    held: &Held,
    layers: &[Layer],
) -> Result<Uploaded, JobError> {
    let chain = ensure_layers(worker, held.lease, layers).await?;
    let scratch = worker.content.scratch()?;
    let (path, root) = (scratch.path().join("rootfs.tar"), scratch.path().join("root"));
    std::fs::create_dir(&root)?;
    let out = path.clone();
    let packed = tokio::task::spawn_blocking(move || {
        let _mount = match chain.lowers.as_slice() {
            [] => None,
            lowers => Some(mount_readonly(lowers, &root)?),
        };
        layer::pack_upper(&root, &[], &out, layer::Compression::None).map_err(std::io::Error::other)
    })
    .await??;
    send(worker, held, &path, packed.blob, packed.size_bytes).await
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
