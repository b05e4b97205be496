//! The data directory.
//!
//! ```text
//! layers/<diff id>/    one unpacked layer, in overlay form; never changed once it has its name
//! blobs/<digest>       a layer as it is pushed
//! manifests/<digest>   an encoded tree
//! caches/<digest>/     a cache mount: see [`super::caches`]
//! tmp/                 everything unfinished; emptied at start
//! lock                 locked by the worker that uses the directory
//! worker-id            the worker's id
//! ```
//!
//! Things get their name by rename when they are complete, so that a crash leaves nothing half.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use common::{Digest, ProjectName, StageId, WorkerId};

use super::caches::CacheLocks;
use super::trees::{KnownTree, KnownTrees};

/// A data directory.
#[derive(Debug)]
pub(crate) struct ContentStore {
    root: PathBuf,
    /// One lock per thing that is being fetched: it is fetched once.
    fetching: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    /// Root file systems of stages that ran here: their layers, lowest first.
    chains: Mutex<HashMap<StageId, Vec<PathBuf>>>,
    /// Who uses which cache mount.
    pub(super) cache_locks: CacheLocks,
    trees: KnownTrees,
    _lock: fs::File,
}

impl ContentStore {
    /// Opens a data directory, which may be new, and removes what a killed worker left.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        let lock = lock(&root)?;
        crate::rootfs::unmount_below(&root)?;
        let tmp = root.join("tmp");
        if tmp.exists() {
            fs::remove_dir_all(&tmp)?;
        }
        for name in ["layers", "blobs", "manifests", "caches", "tmp"] {
            fs::create_dir_all(root.join(name))?;
        }
        Ok(Self {
            root,
            fetching: Mutex::default(),
            chains: Mutex::default(),
            cache_locks: CacheLocks::default(),
            trees: KnownTrees::default(),
            _lock: lock,
        })
    }

    /// The worker's id, made at the first start.
    pub(crate) fn worker_id(&self) -> io::Result<WorkerId> {
        let path = self.root.join("worker-id");
        if let Ok(text) = fs::read_to_string(&path)
            && let Ok(id) = text.trim().parse()
        {
            return Ok(id);
        }
        let id = WorkerId(uuid::Uuid::now_v7());
        fs::write(path, format!("{id}\n"))?;
        Ok(id)
    }

    /// A fresh directory for unfinished things, removed when dropped.
    pub(crate) fn scratch(&self) -> io::Result<tempfile::TempDir> {
        tempfile::tempdir_in(self.root.join("tmp"))
    }

    /// Where a layer is, or would be.
    pub(crate) fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    /// Where a blob is, or would be.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.hex())
    }

    /// Where a manifest is, or would be.
    pub(crate) fn manifest(&self, digest: &Digest) -> PathBuf {
        self.root.join("manifests").join(digest.hex())
    }

    /// Where cache mounts are.
    pub(super) fn caches(&self) -> PathBuf {
        self.root.join("caches")
    }

    /// Gives an unfinished file or directory its name. Something of that name is the same thing.
    pub(crate) fn commit(from: &Path, to: &Path) -> io::Result<()> {
        if to.exists() {
            return if from.is_dir() { fs::remove_dir_all(from) } else { fs::remove_file(from) };
        }
        match fs::rename(from, to) {
            // Somebody else was first.
            Err(_) if to.exists() => Ok(()),
            result => result,
        }
    }

    /// The lock of a thing that is to be fetched.
    pub(crate) fn fetch_lock(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        fetching.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(fetching.entry(digest).or_default())
    }

    /// Remembers the root file system of a stage that ran here.
    pub(crate) fn remember_chain(&self, stage: StageId, lowers: Vec<PathBuf>) {
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        // Builds are short; what was not read for so many stages is not read any more.
        if chains.len() > 1000 {
            chains.clear();
        }
        chains.insert(stage, lowers);
    }

    /// Remembers a tree whose files are in a layer.
    pub(crate) fn remember_tree(&self, tree: KnownTree) {
        self.trees.add(tree);
    }

    /// A layer that is not finished got its place.
    pub(crate) fn layer_moved(&self, from: &Path, to: &Path) {
        self.trees.moved(from, to);
    }

    /// The trees of a project whose files are in layers here, newest first.
    pub(crate) fn trees(&self, project: &ProjectName) -> Vec<KnownTree> {
        self.trees.of(project)
    }

    /// The root file system of a stage that ran here, if all of it is still there.
    pub(crate) fn chain(&self, stage: StageId) -> Option<Vec<PathBuf>> {
        let chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let lowers = chains.get(&stage)?.clone();
        lowers.iter().all(|lower| lower.is_dir()).then_some(lowers)
    }
}

/// Makes sure that nobody else uses the directory: opening one removes what is unfinished in it. A
/// worker that was just killed may take a moment to go.
fn lock(root: &Path) -> io::Result<fs::File> {
    use rustix::fs::{FlockOperation, flock};
    let file = fs::File::create(root.join("lock"))?;
    for _ in 0..30 {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            result => return result.map(|()| file).map_err(io::Error::from),
        }
    }
    let message = format!("{} is in use by another worker", root.display());
    Err(io::Error::new(io::ErrorKind::ResourceBusy, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_things_are_gone_after_a_restart_and_finished_ones_stay() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        let id = store.worker_id().unwrap();
        let left = store.scratch().unwrap().keep();
        let done = store.scratch().unwrap().keep();
        let diff_id = Digest::of(b"layer");
        ContentStore::commit(&done, &store.layer(&diff_id)).unwrap();
        drop(store);
        let again = ContentStore::open(root.path()).unwrap();
        assert!(!left.exists());
        assert!(again.layer(&diff_id).is_dir());
        assert_eq!(again.worker_id().unwrap(), id);
    }

    #[test]
    fn committing_twice_keeps_the_first() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        let digest = Digest::of(b"x");
        for _ in 0..2 {
            let unfinished = store.scratch().unwrap().keep();
            ContentStore::commit(&unfinished, &store.layer(&digest)).unwrap();
            assert!(!unfinished.exists());
        }
    }

    #[test]
    fn a_chain_that_lost_a_layer_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        let layer = store.scratch().unwrap().keep();
        let stage = StageId(uuid::Uuid::now_v7());
        store.remember_chain(stage, vec![layer.clone()]);
        assert!(store.chain(stage).is_some());
        fs::remove_dir(layer).unwrap();
        assert!(store.chain(stage).is_none());
    }
}
