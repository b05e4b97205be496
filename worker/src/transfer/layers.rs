//! Layers: from where they are to an unpacked directory, or to a blob on disk.

use std::sync::Arc;

use api::worker::v1::{ObjectKind, ObjectName};
use common::digest::Hasher;
use common::image::{Layer, LayerOrigin};
use fetch::FetchError;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use registry::RegistryError;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::TransferError;
use super::objects::{get, or_suspect, with_retries};
use crate::content::{Chain, Pin, Right};
use crate::dispatch::{Asker, Worker};

/// Layers that are fetched at once.
const PARALLEL: usize = 4;

/// Some layers, lowest first; those that are missing are fetched. They stay as long as the chain
/// does.
pub(crate) async fn ensure_layers(
    worker: &Arc<Worker>,
    asker: &Asker,
    layers: &[Layer],
) -> Result<Chain, TransferError> {
    let pins: Vec<Pin> = futures_util::stream::iter(layers.to_vec())
        .map(|layer| ensure_layer(Arc::clone(worker), asker.clone(), layer).boxed())
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    let lowers = pins.iter().map(Pin::path).collect();
    Ok(Chain { lowers, pins, scratch: Vec::new() })
}

async fn ensure_layer(
    worker: Arc<Worker>,
    asker: Asker,
    layer: Layer,
) -> Result<Pin, TransferError> {
    let right = Right::of(&asker.project, &layer.origin);
    // What somebody else has had is fetched once more: see `content::access`.
    let find = || {
        let may = worker.content.has_had(&layer.diff_id, &right);
        may.then(|| worker.content.find_layer(&layer.diff_id)).flatten()
    };
    if let Some(pin) = find() {
        return Ok(pin);
    }
    let lock = worker.content.fetch_lock(layer.diff_id);
    let _guard = lock.lock().await;
    if let Some(pin) = find() {
        return Ok(pin);
    }
    let fetched = with_retries(|| async {
        let reader = open_blob(&worker, &asker, &layer).await?;
        let scratch = worker.content.scratch()?;
        let target = scratch.path().join("layer");
        let directory = target.clone();
        let extracted = tokio::task::spawn_blocking(move || {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::create_dir(&directory)?;
            // The root of a file system is open to all unless a layer says otherwise.
            std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755))?;
            Ok::<_, TransferError>(layer::extract(SyncIoBridge::new(reader), &directory)?)
        })
        .await??;
        if extracted.diff_id != layer.diff_id {
            return Err(TransferError::Damaged(format!("layer {}", layer.blob)));
        }
        let bytes = extracted.content_bytes;
        let pin = worker.content.commit_layer(&target, &layer.diff_id, bytes)?;
        worker.content.note_had(&layer.diff_id, &right);
        Ok(pin)
    })
    .await;
    or_suspect_layer(&worker, &asker, &layer, fetched).await
}

/// See [`or_suspect`]; a registry's layers are its own matter.
async fn or_suspect_layer<T>(
    worker: &Worker,
    asker: &Asker,
    layer: &Layer,
    outcome: Result<T, TransferError>,
) -> Result<T, TransferError> {
    if !matches!(layer.origin, LayerOrigin::Farm | LayerOrigin::Brought) {
        return outcome;
    }
    or_suspect(&worker.client, asker.lease, &[object_of(layer)], outcome).await
}

fn object_of(layer: &Layer) -> ObjectName {
    ObjectName { kind: ObjectKind::Blob, digest: layer.blob, size_bytes: layer.size_bytes }
}

/// The bytes of a layer's blob, from the nearest place that has them.
pub(crate) async fn open_blob(
    worker: &Arc<Worker>,
    asker: &Asker,
    layer: &Layer,
) -> Result<Box<dyn AsyncRead + Send + Unpin>, TransferError> {
    // A file that is open can be read even when it loses its name.
    if worker.content.has_had(&layer.blob, &Right::of(&asker.project, &layer.origin))
        && let Some(pin) = worker.content.find_blob(&layer.blob)
        && let Ok(file) = tokio::fs::File::open(pin.path()).await
    {
        return Ok(Box::new(file));
    }
    match &layer.origin {
        LayerOrigin::Registry { repository } => {
            let stream = worker.registry.pull_blob(repository, &layer.blob).await?;
            Ok(Box::new(StreamReader::new(stream.boxed())))
        }
        LayerOrigin::Foreign { repository, urls } => {
            match worker.registry.pull_blob(repository, &layer.blob).await {
                Ok(stream) => Ok(Box::new(StreamReader::new(stream.boxed()))),
                Err(RegistryError::LayerMissing { .. }) => {
                    Ok(Box::new(open_foreign(worker, repository, urls, layer).await?))
                }
                Err(error) => Err(error.into()),
            }
        }
        LayerOrigin::Farm | LayerOrigin::Brought => {
            let response = get(&worker.client, asker.lease, object_of(layer), None).await?;
            let stream = response.bytes_stream().map_err(std::io::Error::other);
            Ok(Box::new(StreamReader::new(stream.boxed())))
        }
    }
}

/// A layer that registries do not hand out, from the first address that has it. They are the image's
/// words, so they lead where those of ADD may, and what comes is checked before anybody reads it.
async fn open_foreign(
    worker: &Worker,
    repository: &str,
    urls: &[String],
    layer: &Layer,
) -> Result<tokio::fs::File, TransferError> {
    let scratch = worker.content.scratch()?;
    let path = scratch.path().join("foreign");
    let fetcher = worker.fetcher.limited_to(layer.size_bytes);
    let mut reasons = Vec::new();
    for url in urls {
        match fetcher.download(url, &path).await {
            // A file that is open can be read even when it loses its name.
            Ok(got) if got.digest == layer.blob => return Ok(tokio::fs::File::open(&path).await?),
            Ok(_) => reasons.push(format!("{url} has other bytes")),
            Err(FetchError::File(error)) => return Err(error.into()),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    Err(TransferError::Foreign {
        layer: layer.blob.to_string(),
        repository: repository.to_owned(),
        reasons: reasons.join("; "),
    })
}

/// A layer's blob as a file, which stays as long as the pin does.
pub(crate) async fn ensure_blob(
    worker: &Arc<Worker>,
    asker: &Asker,
    layer: &Layer,
) -> Result<Pin, TransferError> {
    let right = Right::of(&asker.project, &layer.origin);
    if worker.content.has_had(&layer.blob, &right)
        && let Some(pin) = worker.content.find_blob(&layer.blob)
    {
        return Ok(pin);
    }
    let fetched = with_retries(|| async {
        let mut reader = open_blob(worker, asker, layer).await?.take(layer.size_bytes + 1);
        let scratch = worker.content.scratch()?;
        let path = scratch.path().join("blob");
        let mut file = tokio::fs::File::create(&path).await?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = reader.read(&mut buffer).await?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            file.write_all(&buffer[..count]).await?;
        }
        file.flush().await?;
        if hasher.finish() != layer.blob {
            return Err(TransferError::Damaged(format!("layer {}", layer.blob)));
        }
        let pin = worker.content.commit_blob(&path, &layer.blob)?;
        worker.content.note_had(&layer.blob, &right);
        Ok(pin)
    })
    .await;
    or_suspect_layer(worker, asker, layer, fetched).await
}
