//! The data directory.
//!
//! ```text
//! layers/<diff id>/    one unpacked layer, in overlay form; never changed once it has its name
//! blobs/<digest>       a layer as it is pushed
//! manifests/<digest>   an encoded tree
//! caches/<digest>/     a cache mount: see [`super::caches`]
//! journal, synced      what is known of all these: see [`super::journal`]
//! damaged/             what `store verify` found damaged, to be looked at
//! tmp/                 everything unfinished; emptied at start
//! trash/               what is being removed; emptied at start
//! lock                 locked by the worker that uses the directory
//! control/             the socket of `slipway-worker store`
//! worker-id            the worker's id
//! ```
//!
//! Things get their name by rename when they are complete, so that a crash leaves nothing half;
//! docs/decisions/0008 says what a crash of the machine may leave.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use common::{Digest, ProjectName, WorkerId};

use super::access::{self, Access};
use super::caches::CacheLocks;
use super::chains::Chains;
use super::entry::{Entry, Kind};
use super::index::{Evicted, Index, Pin, discard};
use super::journal::boot_id;
use super::trees::{KnownTree, KnownTrees};

/// A data directory.
#[derive(Debug)]
pub(crate) struct ContentStore {
    pub(super) root: PathBuf,
    pub(super) index: Arc<Index>,
    pub(super) access: Access,
    /// One lock per thing that is being fetched: it is fetched once.
    fetching: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    /// Root file systems of stages that ran here.
    pub(super) chains: Chains,
    /// Who uses which cache mount.
    pub(super) cache_locks: CacheLocks,
    /// There is no room for more work.
    pub(super) is_full: AtomicBool,
    /// What takes long ends now.
    pub(super) is_stopping: AtomicBool,
    trees: KnownTrees,
    _lock: fs::File,
}

/// What is made in this directory has little to do with each other: ext4 then gives each subdirectory
/// a part of the disk of its own (`T` in chattr(1)), away from what was removed a moment ago. Without
/// a journal it takes no inode again for minutes, and looks at all of them for every new file. File
/// systems that know no such wish have no need of it.
fn spread(directory: &Path) {
    let wish = fs::File::open(directory).and_then(|directory| {
        let flags = rustix::fs::ioctl_getflags(&directory)?;
        Ok(rustix::fs::ioctl_setflags(&directory, flags | rustix::fs::IFlags::TOPDIR)?)
    });
    if let Err(error) = wish {
        tracing::debug!(directory = %directory.display(), %error, "it cannot be spread");
    }
}

impl ContentStore {
    /// Opens a data directory, which may be new, and removes what a killed worker left.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        Self::open_in_boot(root, &boot_id()?)
    }

    /// Opens a data directory in this boot of the machine.
    pub(crate) fn open_in_boot(root: &Path, boot: &str) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        let lock = lock(&root, 30)?;
        Self::open_locked(root, lock, boot)
    }

    /// Opens a data directory that no worker uses; none if one does.
    pub(super) fn open_unused(root: &Path) -> io::Result<Option<Self>> {
        let root = root.canonicalize()?;
        match lock(&root, 1) {
            Ok(lock) => Self::open_locked(root, lock, &boot_id()?).map(Some),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open_locked(root: PathBuf, lock: fs::File, boot: &str) -> io::Result<Self> {
        crate::rootfs::unmount_below(&root)?;
        for name in ["tmp", "trash"] {
            discard(&root.join(name))?;
        }
        let directories = Kind::ALL.map(Kind::directory);
        for name in directories.iter().chain(&["damaged", access::DIRECTORY, "tmp", "trash"]) {
            let directory = root.join(name);
            fs::create_dir_all(&directory)?;
            spread(&directory);
        }
        let index = Index::open(&root, boot)?;
        for dropped in fs::read_dir(root.join("trash"))? {
            discard(&dropped?.path())?;
        }
        let access = Access::open(&root, |digest| Self::holds(&index, digest))?;
        Ok(Self {
            root,
            index,
            access,
            fetching: Mutex::default(),
            chains: Chains::default(),
            cache_locks: CacheLocks::default(),
            is_full: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
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

    /// A layer, if it is there.
    pub(crate) fn find_layer(&self, diff_id: &Digest) -> Option<Pin> {
        self.index.find(Entry::new(Kind::Layer, *diff_id))
    }

    /// A blob, if it is there.
    pub(crate) fn find_blob(&self, digest: &Digest) -> Option<Pin> {
        self.index.find(Entry::new(Kind::Blob, *digest))
    }

    /// A manifest, if it is there.
    pub(crate) fn find_manifest(&self, digest: &Digest) -> Option<Pin> {
        self.index.find(Entry::new(Kind::Manifest, *digest))
    }

    /// What is at this place.
    pub(super) fn find_place(&self, place: &Path) -> Option<Pin> {
        let name = place.strip_prefix(&self.root).ok()?.to_str()?;
        self.index.find(name.parse().ok()?)
    }

    /// Gives a complete layer its name; about how big it is, is enough. One that has the name
    /// already is the same: then `from` stays where it is, for its owner to remove.
    pub(crate) fn commit_layer(
        &self,
        from: &Path,
        diff_id: &Digest,
        bytes: u64,
    ) -> io::Result<Pin> {
        let entry = Entry::new(Kind::Layer, *diff_id);
        let pin = self.name_layer(from, || self.index.commit(entry, from, Some(bytes)))?;
        self.trees.moved(from, &pin.path());
        Ok(pin)
    }

    /// Gives a complete blob its name.
    pub(crate) fn commit_blob(&self, from: &Path, digest: &Digest) -> io::Result<Pin> {
        let bytes = fs::metadata(from)?.len();
        self.index.commit(Entry::new(Kind::Blob, *digest), from, Some(bytes))
    }

    /// Gives a complete manifest its name.
    pub(crate) fn commit_manifest(&self, from: &Path, digest: &Digest) -> io::Result<Pin> {
        let bytes = fs::metadata(from)?.len();
        self.index.commit(Entry::new(Kind::Manifest, *digest), from, Some(bytes))
    }

    /// Removes entries, except for those in use.
    pub(super) fn remove(&self, entries: &[Entry]) -> io::Result<Evicted> {
        self.index.remove(entries, false)
    }

    /// The lock of a thing that is to be fetched.
    pub(crate) fn fetch_lock(&self, digest: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        fetching.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(fetching.entry(digest).or_default())
    }

    /// Remembers a tree whose files are in a layer.
    pub(crate) fn remember_tree(&self, tree: KnownTree) {
        self.trees.add(tree);
    }

    /// The trees of a project whose files are in layers here, newest first. The layers may be gone.
    pub(crate) fn trees(&self, project: &ProjectName) -> Vec<KnownTree> {
        self.trees.of(project)
    }
}

/// Makes sure that nobody else uses the directory: opening one removes what is unfinished in it. A
/// worker that was just killed may take a moment to go.
fn lock(root: &Path, attempts: u32) -> io::Result<fs::File> {
    use rustix::fs::{FlockOperation, flock};
    let file = fs::File::create(root.join("lock"))?;
    for attempt in 1..=attempts {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if attempt < attempts => {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            result => return result.map(|()| file).map_err(io::Error::from),
        }
    }
    let message = format!("{} is in use by another worker", root.display());
    Err(io::Error::new(io::ErrorKind::ResourceBusy, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(store: &ContentStore, name: &[u8], content: &str) -> Pin {
        let scratch = store.scratch().unwrap();
        let layer = scratch.path().join("layer");
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join("f"), content).unwrap();
        store.commit_layer(&layer, &Digest::of(name), 4096).unwrap()
    }

    fn blob(store: &ContentStore, content: &[u8]) -> Digest {
        let scratch = store.scratch().unwrap();
        let (path, digest) = (scratch.path().join("blob"), Digest::of(content));
        fs::write(&path, content).unwrap();
        store.commit_blob(&path, &digest).unwrap();
        digest
    }

    #[test]
    fn unfinished_things_are_gone_after_a_restart_and_finished_ones_stay() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        let id = store.worker_id().unwrap();
        let left = store.scratch().unwrap().keep();
        let diff_id = Digest::of(b"layer");
        drop(commit(&store, b"layer", "x"));
        drop(store);
        let again = ContentStore::open(root.path()).unwrap();
        assert!(!left.exists());
        assert!(again.find_layer(&diff_id).unwrap().path().is_dir());
        assert_eq!(again.worker_id().unwrap(), id);
    }

    #[test]
    fn committing_twice_keeps_the_first() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        commit(&store, b"x", "first");
        let again = commit(&store, b"x", "second");
        assert_eq!(fs::read_to_string(again.path().join("f")).unwrap(), "first");
        assert_eq!(fs::read_dir(root.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn after_a_crash_of_the_machine_only_what_was_synced_is_there() {
        let root = tempfile::tempdir().unwrap();
        let open = |boot: &str| ContentStore::open_in_boot(root.path(), boot).unwrap();
        let store = open("first");
        let synced = blob(&store, b"synced");
        store.index.sync().unwrap();
        let later = blob(&store, b"later");
        drop(store);
        // A killed process loses nothing.
        let store = open("first");
        assert!(store.find_blob(&later).is_some());
        drop(store);
        let store = open("second");
        assert!(store.find_blob(&synced).is_some());
        assert!(store.find_blob(&later).is_none());
        assert!(!root.path().join("blobs").join(later.hex()).exists());
        // The numbers go on: what is new is not taken for what was synced.
        let newer = blob(&store, b"newer");
        drop(store);
        let store = open("third");
        assert!(store.find_blob(&synced).is_some() && store.find_blob(&newer).is_none());
    }

    #[test]
    fn an_entry_that_came_back_after_the_sync_does_not_pass_for_the_synced_one() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open_in_boot(root.path(), "first").unwrap();
        let digest = blob(&store, b"x");
        store.index.sync().unwrap();
        let entry = Entry::new(Kind::Blob, digest);
        assert_eq!(store.remove(&[entry]).unwrap().entries, 1);
        // What is written from here on is lost, as a crash may lose it.
        let journal = fs::read(root.path().join("journal")).unwrap();
        blob(&store, b"x");
        drop(store);
        fs::write(root.path().join("journal"), journal).unwrap();
        let store = ContentStore::open_in_boot(root.path(), "second").unwrap();
        assert!(store.find_blob(&digest).is_none());
    }

    #[test]
    fn a_cache_that_was_in_use_at_a_crash_of_the_machine_is_dropped() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open_in_boot(root.path(), "first").unwrap();
        let digest = Digest::of(b"cache");
        let place = |number| Entry::cache(digest, number).place(&store.root);
        let mut held = Vec::new();
        for number in 0..2 {
            let entry = Entry::cache(digest, number);
            let scratch = store.scratch().unwrap();
            held.push(store.index.commit(entry, scratch.path(), None).unwrap());
        }
        let (unused, used) = (place(0), place(1));
        held.remove(0);
        store.index.sync().unwrap();
        // The pin of a killed process is never given back.
        std::mem::forget(held);
        drop(store);
        ContentStore::open_in_boot(root.path(), "second").unwrap();
        assert!(unused.exists() && !used.exists());
    }

    #[test]
    fn a_store_without_records_is_measured_in_this_boot_and_dropped_in_another() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open_in_boot(root.path(), "first").unwrap();
        let digest = blob(&store, &[7; 10_000]);
        store.index.sync().unwrap();
        drop(store);
        fs::write(root.path().join("journal"), "{\"entry\":\"torn").unwrap();
        let store = ContentStore::open_in_boot(root.path(), "first").unwrap();
        store.index.measure_unknown();
        assert!(store.index.candidates()[0].bytes >= 10_000);
        drop(store);
        fs::remove_file(root.path().join("journal")).unwrap();
        fs::remove_file(root.path().join("synced")).unwrap();
        let store = ContentStore::open_in_boot(root.path(), "first").unwrap();
        assert!(store.find_blob(&digest).is_none(), "nobody knows what it has been through");
    }

    #[test]
    fn what_has_no_name_of_an_entry_is_thrown_away() {
        let root = tempfile::tempdir().unwrap();
        drop(ContentStore::open(root.path()).unwrap());
        let hex = Digest::of(b"x").hex();
        for name in ["layers/x".to_owned(), format!("layers/{hex}"), "blobs/.x".to_owned()] {
            fs::write(root.path().join(name), "a file").unwrap();
        }
        fs::create_dir(root.path().join("blobs").join(&hex)).unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        assert!(store.index.candidates().is_empty());
        for name in ["layers", "blobs", "trash"] {
            assert_eq!(fs::read_dir(root.path().join(name)).unwrap().count(), 0, "{name}");
        }
    }

    #[test]
    fn the_order_of_use_survives_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        let digests = [blob(&store, b"a"), blob(&store, b"b"), blob(&store, b"c")];
        drop(store.find_blob(&digests[0]));
        store.index.flush();
        drop(store);
        let store = ContentStore::open(root.path()).unwrap();
        let mut all = store.index.candidates();
        all.sort_by_key(|candidate| candidate.used);
        let order: Vec<Digest> = all.iter().map(|candidate| candidate.entry.digest).collect();
        assert_eq!(order, [digests[1], digests[2], digests[0]]);
    }
}
