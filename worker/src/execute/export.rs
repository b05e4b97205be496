//! An export: configuration and manifest put together, pushed or packed.

use std::sync::Arc;
use std::time::Instant;

use api::public::v1::LogStream;
use api::worker::v1::{
    ExportJob, ExportResult, ExportTarget, ObjectKind, ObjectName, StageOutcome,
};
use common::digest::Hasher;
use common::image::Layer;
use common::{Digest, Failure, FailureClass};
use oci::Reference;
use oci::image::{AssembledImage, assemble};
use registry::{PushBlob, PushImage};

use super::failure::JobError;
use super::job::Account;
use super::stage::millis;
use crate::dispatch::{Held, Worker};
use crate::logs::LogWriter;
use crate::transfer::{ensure_blob, open_blob, upload};

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
    Ok(StageOutcome::Succeeded { layers: job.layers, exports })
}

async fn export(
    worker: &Arc<Worker>,
    held: &Held,
    job: &ExportJob,
    log: &LogWriter,
    account: &mut Account,
) -> Result<Vec<ExportResult>, JobError> {
    let image = assemble(&job.document, &job.layers).map_err(|error| {
        Failure::new(FailureClass::Infrastructure, "export-failed", error.to_string())
    })?;
    let mut results = Vec::new();
    for (position, target) in job.targets.iter().enumerate() {
        let mut result = ExportResult {
            target: u32::try_from(position).unwrap_or(u32::MAX),
            digest: image.manifest_digest,
            config_digest: image.config_digest,
            archive: None,
            archive_bytes: None,
        };
        match target {
            ExportTarget::DigestOnly => {}
            ExportTarget::Push { names } => push(worker, held, job, &image, names, log).await?,
            ExportTarget::OciArchive { names } => {
                let (digest, size_bytes, sent) = archive(worker, held, job, &image, names).await?;
                account.uploaded_bytes += sent;
                (result.archive, result.archive_bytes) = (Some(digest), Some(size_bytes));
            }
        }
        results.push(result);
    }
    Ok(results)
}

async fn push(
    worker: &Arc<Worker>,
    held: &Held,
    job: &ExportJob,
    image: &AssembledImage,
    names: &[String],
    log: &LogWriter,
) -> Result<(), JobError> {
    let push = PushImage {
        manifest: image.manifest.clone(),
        manifest_media_type: image.manifest_media_type,
        config: image.config.clone(),
        blobs: job.layers.iter().map(|layer| PushBlob { layer: layer.clone() }).collect(),
    };
    for name in names {
        let reference: Reference = name.parse().map_err(|error| {
            let error: oci::reference::InvalidReference = error;
            Failure::new(FailureClass::User, "invalid-reference", error.to_string())
        })?;
        let lease = held.lease;
        let open = |layer: Layer| {
            let worker = Arc::clone(worker);
            async move { open_blob(&worker, lease, &layer).await.map_err(std::io::Error::other) }
        };
        let sent = worker
            .registry
            .push(&reference, &push, open)
            .await
            .map_err(|error| push_failure(&error))?;
        let text = format!("pushed {name}@{} ({sent} bytes sent)", image.manifest_digest);
        log.line(0, LogStream::System, text).await;
    }
    Ok(())
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

/// Writes the image as an archive and uploads that. Returns digest, length and the bytes sent.
async fn archive(
    worker: &Arc<Worker>,
    held: &Held,
    job: &ExportJob,
    image: &AssembledImage,
    names: &[String],
) -> Result<(Digest, u64, u64), JobError> {
    let mut blobs = std::collections::HashMap::new();
    for layer in &job.layers {
        blobs.insert(layer.blob, ensure_blob(worker, held.lease, layer).await?);
    }
    let scratch = worker.content.scratch()?;
    let path = scratch.path().join("archive.tar");
    let (out, image, names) = (path.clone(), image.clone(), names.to_vec());
    let layers = job.layers.clone();
    let (digest, size_bytes) = tokio::task::spawn_blocking(move || {
        let file = std::io::BufWriter::new(std::fs::File::create(&out)?);
        let open = |layer: &Layer| -> std::io::Result<Box<dyn std::io::Read>> {
            let path = blobs.get(&layer.blob).ok_or(std::io::ErrorKind::NotFound)?;
            Ok(Box::new(std::fs::File::open(path)?))
        };
        oci::archive::write_oci_layout(file, &image, &names, open, &layers)?;
        let mut hasher = Hasher::new();
        let size_bytes = std::io::copy(&mut std::fs::File::open(&out)?, &mut hasher)?;
        Ok::<_, std::io::Error>((hasher.finish(), size_bytes))
    })
    .await??;
    let object = ObjectName { kind: ObjectKind::Export, digest, size_bytes };
    let sent = upload(&worker.client, held.lease, vec![(object, path.clone())]).await?;
    Ok((digest, size_bytes, sent))
}
