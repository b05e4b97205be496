//! Trees: contexts and slices.

use std::path::Path;
use std::sync::Arc;

use api::worker::v1::{ObjectKind, ObjectName};
use blobstore::layout::Layout;
use blobstore::manifest::{self, MAX_STORED_BYTES};
use common::tree::{Entry, Manifest};
use common::{Digest, Lease};
use futures_util::{FutureExt as _, StreamExt as _};

use super::TransferError;
use super::objects::fetch_bytes;
use crate::dispatch::Worker;

/// Ranges that are read at once.
const PARALLEL: usize = 8;

/// Lays the wanted part of a tree out in the existing empty directory `target`. `inline` is the
/// encoded manifest where the job message brought it. Returns the bytes that came through the
/// object store.
pub(crate) async fn lay_out(
    worker: &Arc<Worker>,
    lease: Lease,
    digest: Digest,
    inline: Option<Vec<u8>>,
    want: impl Fn(&Manifest, &Entry) -> bool + Send + 'static,
    target: &Path,
) -> Result<u64, TransferError> {
    let (manifest, mut transferred) = read_manifest(worker, lease, digest, inline).await?;
    let root = target.to_owned();
    let layout = tokio::task::spawn_blocking(move || {
        let layout = Layout::prepare(&manifest, |entry| want(&manifest, entry), &root)?;
        Ok::<_, TransferError>(layout)
    })
    .await??;
    let layout = Arc::new(layout);
    let ranges = layout.ranges().to_vec();
    let mut arriving = futures_util::stream::iter(ranges)
        .map(|range| {
            let layout = Arc::clone(&layout);
            let worker = Arc::clone(worker);
            async move {
                let (kind, digest, size_bytes) = (ObjectKind::Pack, range.pack, 0);
                let object = ObjectName { kind, digest, size_bytes };
                let place = Some((range.offset, range.length));
                let limit = usize::try_from(range.length).unwrap_or(usize::MAX);
                let bytes = fetch_bytes(&worker.client, lease, object, place, limit).await?;
                let count = bytes.len() as u64;
                tokio::task::spawn_blocking(move || layout.write(&range, &bytes)).await??;
                Ok::<_, TransferError>(count)
            }
            .boxed()
        })
        .buffer_unordered(PARALLEL);
    while let Some(count) = arriving.next().await {
        transferred += count?;
    }
    drop(arriving);
    // Every task that wrote has ended, so nobody else holds the layout.
    let layout = Arc::try_unwrap(layout)
        .map_err(|_| TransferError::Damaged("a layout that is still in use".to_owned()))?;
    tokio::task::spawn_blocking(move || layout.finish()).await??;
    Ok(transferred)
}

async fn read_manifest(
    worker: &Arc<Worker>,
    lease: Lease,
    digest: Digest,
    inline: Option<Vec<u8>>,
) -> Result<(Manifest, u64), TransferError> {
    if let Some(bytes) = inline.filter(|bytes| Digest::of(bytes) == digest) {
        return Ok((manifest::decode(&bytes)?, bytes.len() as u64));
    }
    if let Some(pin) = worker.content.find_manifest(&digest)
        && let Ok(bytes) = tokio::fs::read(pin.path()).await
        && Digest::of(&bytes) == digest
    {
        return Ok((manifest::decode(&bytes)?, 0));
    }
    let object = ObjectName { kind: ObjectKind::Manifest, digest, size_bytes: 0 };
    let bytes = fetch_bytes(&worker.client, lease, object, None, MAX_STORED_BYTES).await?;
    let scratch = worker.content.scratch()?;
    let path = scratch.path().join("manifest");
    tokio::fs::write(&path, &bytes).await?;
    worker.content.commit_manifest(&path, &digest)?;
    Ok((manifest::decode(&bytes)?, bytes.len() as u64))
}
