//! Keeping the store: within its limits, and safe from crashes of the machine.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ContentStore;
use super::entry::{Entry, Kind};
use super::index::{Evicted, now};
use super::policy::{Limits, Space, choose};

/// How often the limits are looked after when nothing is committed: others use the disk too.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The same while there is no room to work.
const LOOK_EVERY_WHEN_FULL: Duration = Duration::from_secs(1);
/// How often what is new is synced: a crash of the machine costs that much at most.
const SYNC_EVERY: Duration = Duration::from_mins(1);
/// Less than this is no room: a command that fails then most likely failed for that.
const NO_ROOM_BYTES: u64 = 256 << 10;
/// Rounds of eviction in a row where the file system lacks inodes.
const MAX_ROUNDS: u32 = 30;

impl ContentStore {
    /// The space of the store's file system.
    pub(crate) fn space(&self) -> io::Result<Space> {
        let found = rustix::fs::statvfs(&self.root)?;
        Ok(Space {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_inodes: found.f_favail,
            total_inodes: found.f_files,
        })
    }

    /// Whether hardly anything can be written any more.
    pub(crate) fn has_no_room(&self) -> bool {
        self.space().is_ok_and(|space| {
            space.free_bytes < NO_ROOM_BYTES || (space.total_inodes > 0 && space.free_inodes == 0)
        })
    }

    /// Whether there is no room for more work.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// The disk was full: no work is begun before room was made.
    pub(crate) fn report_full(&self) {
        self.is_full.store(true, Ordering::Relaxed);
        self.index.changed.notify_one();
    }

    /// Removes what is beyond the limits, and is not in use.
    pub(super) fn evict(&self, limits: Limits) -> io::Result<Evicted> {
        self.index.measure_unknown();
        let mut total = Evicted::default();
        for _ in 0..MAX_ROUNDS {
            let space = self.space()?;
            let chosen = choose(&self.index.candidates(), space, limits, now());
            let evicted = self.remove(&chosen)?;
            total.entries += evicted.entries;
            total.bytes += evicted.bytes;
            // File systems may count what was freed a little later: looking again at once would
            // take too much.
            if evicted.entries == 0 || !space.lacks_inodes() {
                break;
            }
        }
        if total.entries > 0 {
            tracing::info!(entries = total.entries, bytes = total.bytes, "evicted from the store");
        }
        Ok(total)
    }

    /// Removes everything that is not in use, and what was found damaged.
    pub(super) fn evict_all(&self) -> io::Result<Evicted> {
        for damaged in std::fs::read_dir(self.root.join("damaged"))? {
            super::index::discard(&damaged?.path())?;
        }
        let all: Vec<Entry> =
            self.index.candidates().iter().map(|candidate| candidate.entry).collect();
        self.remove(&all)
    }

    /// Looks after the limits. Returns whether it changed whether there is room for work.
    pub(crate) fn look_after(&self, limits: Limits) -> bool {
        self.index.flush();
        if let Err(error) = self.evict(limits) {
            tracing::warn!(%error, "cannot evict from the store");
        }
        let is_full = match self.space() {
            Ok(space) => limits.forbid_work(space),
            Err(error) => {
                tracing::warn!(%error, "cannot tell how full the disk is");
                return false;
            }
        };
        let was_full = self.is_full.swap(is_full, Ordering::Relaxed);
        if is_full && !was_full {
            tracing::warn!("the disk is full: no stage is taken until there is room");
        }
        is_full != was_full
    }

    /// Makes what is new safe, and finds out what is not known of it yet.
    fn settle(&self) {
        if let Err(error) = self.index.sync() {
            tracing::error!(%error, "the store's file system lost something");
        }
        for known in self.index.known() {
            if self.is_stopping.load(Ordering::Relaxed) {
                return;
            }
            self.index.measure_changed(&known);
            // Reading everything once more would take the processor from what runs.
            if known.entry.kind == Kind::Layer
                && known.record.tree.is_none()
                && self.index.is_idle()
                && let Ok(tree) = self.tree_digest(&known.entry.place(&self.root))
            {
                self.index.note(&known, None, Some(tree));
            }
        }
        self.index.flush();
    }
}

/// Keeps the store, which was looked after just now, until `stop`; `on_change` is called when there is room for work again, or none
/// any more.
pub(crate) async fn keep(
    store: Arc<ContentStore>,
    limits: Limits,
    on_change: impl Fn(),
    stop: CancellationToken,
) {
    let settling = async {
        loop {
            tokio::select! {
                () = tokio::time::sleep(SYNC_EVERY) => {}
                () = stop.cancelled() => return,
            }
            let store = Arc::clone(&store);
            let _ = tokio::task::spawn_blocking(move || store.settle()).await;
        }
    };
    let evicting = async {
        loop {
            let pause = if store.is_full() { LOOK_EVERY_WHEN_FULL } else { LOOK_EVERY };
            tokio::select! {
                () = store.index.changed.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {
                    // What runs long elsewhere may end.
                    store.is_stopping.store(true, Ordering::Relaxed);
                    return;
                }
            }
            let looked = Arc::clone(&store);
            let looking = tokio::task::spawn_blocking(move || looked.look_after(limits));
            if looking.await.unwrap_or(false) {
                on_change();
            }
        }
    };
    tokio::join!(settling, evicting);
    store.index.flush();
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::Digest;
    use std::fs;

    fn blob(store: &ContentStore, number: u32, bytes: usize) -> Digest {
        let content = number.to_le_bytes().repeat(bytes / 4);
        let scratch = store.scratch().unwrap();
        let (path, digest) = (scratch.path().join("blob"), Digest::of(&content));
        fs::write(&path, content).unwrap();
        store.commit_blob(&path, &digest).unwrap();
        digest
    }

    fn limits(max_bytes: u64) -> Limits {
        let (cache_age_millis, cache_max_bytes) = (u64::MAX, u64::MAX);
        Limits { max_bytes, min_free_bytes: 0, cache_age_millis, cache_max_bytes }
    }

    #[tokio::test]
    async fn a_commit_beyond_the_cap_evicts_what_was_used_longest_ago() {
        let root = tempfile::tempdir().unwrap();
        let store = Arc::new(ContentStore::open(root.path()).unwrap());
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(keep(Arc::clone(&store), limits(100_000), || (), stop.clone()));
        let first = blob(&store, 1, 40_000);
        let second = blob(&store, 2, 40_000);
        let pin = store.find_blob(&first).unwrap();
        let third = blob(&store, 3, 40_000);
        let limit = std::time::Instant::now() + Duration::from_secs(20);
        // To look it up would be a use.
        let place = Entry::new(Kind::Blob, second).place(&store.root);
        while place.exists() {
            assert!(std::time::Instant::now() < limit);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(pin.path().exists() && store.find_blob(&third).is_some());
        stop.cancel();
        keeping.await.unwrap();
        assert_eq!(fs::read_dir(root.path().join("trash")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_cache_counts_with_what_is_in_it_and_goes_when_that_is_too_much() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        let limits = Limits { cache_max_bytes: 100_000, ..limits(u64::MAX) };
        let bytes = || store.index.known()[0].record.bytes.unwrap();
        let name = Digest::of(b"cache");
        let cache = store.cache(name, common::plan::Sharing::Shared).await.unwrap();
        cache.fill(store.scratch().unwrap().path()).unwrap();
        let data = cache.data();
        // What grows while it is in use is noticed, and stays while it is in use.
        for (file, least) in [("a", 60_000), ("b", 120_000)] {
            fs::write(data.join(file), vec![7; 60_000]).unwrap();
            store.settle();
            assert!(bytes() >= least, "{}", bytes());
            assert_eq!(store.evict(limits).unwrap().entries, 0);
        }
        fs::remove_file(data.join("b")).unwrap();
        drop(cache);
        store.settle();
        assert!(bytes() < 100_000, "{}", bytes());
        assert_eq!(store.evict(limits).unwrap().entries, 0);
        let cache = store.cache(name, common::plan::Sharing::Locked).await.unwrap();
        assert!(!cache.is_new());
        fs::write(data.join("b"), vec![7; 60_000]).unwrap();
        drop(cache);
        store.settle();
        assert_eq!(store.evict(limits).unwrap().entries, 1);
        assert!(!data.exists());
        let cache = store.cache(name, common::plan::Sharing::Shared).await.unwrap();
        assert!(cache.is_new());
    }

    #[test]
    fn a_full_disk_is_emptied_even_when_nothing_can_be_written() {
        let root = tempfile::tempdir().unwrap();
        // 16 MiB of memory.
        let _mount = crate::rootfs::mount_memory(root.path()).unwrap();
        let store = ContentStore::open_in_boot(root.path(), "first").unwrap();
        let old = blob(&store, 1, 4 << 20);
        store.index.sync().unwrap();
        let new = blob(&store, 2, 4 << 20);
        // Not a byte is left.
        let filler = root.path().join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        while io::Write::write_all(&mut file, &[0; 512]).is_ok() {}
        assert_eq!(store.space().unwrap().free_bytes, 0);
        let limits = Limits { min_free_bytes: 1 << 20, ..limits(u64::MAX) };
        assert!(limits.forbid_work(store.space().unwrap()));
        store.report_full();
        assert!(store.look_after(limits), "there is room again");
        assert!(store.find_blob(&old).is_none() && store.find_blob(&new).is_some());
        assert!(!store.is_full());
        // What could not be written down is made up for.
        store.index.sync().unwrap();
        drop(store);
        let store = ContentStore::open_in_boot(root.path(), "second").unwrap();
        assert!(store.find_blob(&old).is_none() && store.find_blob(&new).is_some());
    }

    #[test]
    fn a_disk_that_others_fill_forbids_work_until_they_make_room() {
        let root = tempfile::tempdir().unwrap();
        let _mount = crate::rootfs::mount_memory(root.path()).unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        let filler = root.path().join("filler");
        fs::write(&filler, vec![0; 15 << 20]).unwrap();
        let limits = Limits { min_free_bytes: 8 << 20, ..limits(u64::MAX) };
        assert!(store.look_after(limits) && store.is_full());
        assert!(!store.look_after(limits) && store.is_full());
        fs::remove_file(filler).unwrap();
        assert!(store.look_after(limits) && !store.is_full());
    }
}
