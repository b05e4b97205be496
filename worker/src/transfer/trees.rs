//! Trees: contexts and slices.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::worker::v1::{ObjectKind, ObjectName};
use blobstore::layout::Layout;
use blobstore::manifest::{self, MAX_STORED_BYTES};
use common::tree::{Entry, Manifest};
use common::{Digest, Lease};
use futures_util::{FutureExt as _, StreamExt as _};

use super::TransferError;
use super::objects::{fetch_bytes, or_suspect};
use crate::dispatch::Worker;

/// Ranges that are read at once.
const PARALLEL: usize = 8;

/// Packs that the coordinator is asked to look at, at most.
const MOST_SUSPECTS: usize = 100;

/// What of a tree is to be laid out.
pub(crate) struct Wanted<W, K> {
    /// Digest of its manifest.
    pub(crate) digest: Digest,
    /// The encoded manifest, where the job message brought it.
    pub(crate) inline: Option<Vec<u8>>,
    /// Which entries.
    pub(crate) want: W,
    /// Files of the store that are the same as an entry: they get a second name.
    pub(crate) known: K,
}

/// A tree that was laid out.
#[derive(Debug)]
pub(crate) struct LaidOut {
    /// All of the tree.
    pub(crate) manifest: Arc<Manifest>,
    /// Bytes that came through the object store.
    pub(crate) transferred_bytes: u64,
}

/// Lays the wanted part of a tree out in the existing empty directory `target`.
pub(crate) async fn lay_out(
    worker: &Arc<Worker>,
    lease: Lease,
    tree: Wanted<
        impl Fn(&Manifest, &Entry) -> bool + Send + 'static,
        impl Fn(&Entry) -> Option<PathBuf> + Send + 'static,
    >,
    target: &Path,
) -> Result<LaidOut, TransferError> {
    let Wanted { digest, inline, want, known } = tree;
    let (manifest, mut transferred_bytes) = read_manifest(worker, lease, digest, inline).await?;
    let manifest = Arc::new(manifest);
    let (root, whole) = (target.to_owned(), Arc::clone(&manifest));
    let layout = tokio::task::spawn_blocking(move || {
        Layout::prepare(&whole, |entry| want(&whole, entry), known, &root)
    })
    .await??;
    let layout = Arc::new(layout);
    let ranges = layout.ranges().to_vec();
    let packs: BTreeSet<Digest> = ranges.iter().map(|range| range.pack).collect();
    let mut arriving = futures_util::stream::iter(ranges)
        .map(|range| {
            let layout = Arc::clone(&layout);
            let worker = Arc::clone(worker);
            async move {
                let object = pack(range.pack);
                let place = Some((range.offset, range.length));
                let limit = usize::try_from(range.length).unwrap_or(usize::MAX);
                let bytes = fetch_bytes(&worker.client, lease, object, place, limit).await?;
                let count = bytes.len() as u64;
                let written = tokio::task::spawn_blocking(move || layout.write(&range, &bytes));
                let written = written.await?.map_err(TransferError::from);
                or_suspect(&worker.client, lease, &[object], written).await?;
                Ok::<_, TransferError>(count)
            }
            .boxed()
        })
        .buffer_unordered(PARALLEL);
    while let Some(count) = arriving.next().await {
        transferred_bytes += count?;
    }
    drop(arriving);
    // Every task that wrote has ended, so nobody else holds the layout.
    let layout = Arc::try_unwrap(layout)
        .map_err(|_| TransferError::Damaged("a layout that is still in use".to_owned()))?;
    let finished = tokio::task::spawn_blocking(move || layout.finish()).await?;
    let packs: Vec<ObjectName> = packs.into_iter().take(MOST_SUSPECTS).map(pack).collect();
    or_suspect(&worker.client, lease, &packs, finished.map_err(TransferError::from)).await?;
    Ok(LaidOut { manifest, transferred_bytes })
}

fn pack(digest: Digest) -> ObjectName {
    ObjectName { kind: ObjectKind::Pack, digest, size_bytes: 0 }
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
