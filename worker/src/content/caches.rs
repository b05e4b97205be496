//! Cache mounts: directories that outlive builds.
//!
//! ```text
//! caches/<digest of trust domain, id and origin>/<number>/data/
//! ```
//!
//! Number 0 is the one that everybody shares; others are for private users that found it taken.
//! A directory gets its name when its first content is complete. Nothing of it is ever in a layer,
//! and losing it costs time only.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use common::digest::Hasher;
use common::plan::Sharing;
use common::{Digest, Domain, Trust};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::ContentStore;
use super::entry::Entry;
use super::index::Pin;

/// Most copies of one private cache.
const MAX_COPIES: u32 = 1000;

/// A copy of a cache, by the cache's name and its number.
type CopyName = (Digest, u32);

/// One lock for each cache directory in use.
#[derive(Debug, Default)]
pub(super) struct CacheLocks(Mutex<HashMap<CopyName, Arc<RwLock<()>>>>);

/// A cache directory that is in use until this is dropped.
#[derive(Debug)]
pub(crate) struct Cache {
    pin: Arc<Pin>,
    _use: CacheUse,
}

#[derive(Debug)]
enum CacheUse {
    Shared(#[expect(dead_code, reason = "held")] OwnedRwLockReadGuard<()>),
    Alone(#[expect(dead_code, reason = "held")] OwnedRwLockWriteGuard<()>),
    /// Taken by another mount of the same command.
    Again,
}

impl Cache {
    /// Where its content is, or would be.
    pub(crate) fn data(&self) -> PathBuf {
        self.pin.path()
    }

    /// The same one again, for a command that has taken it already.
    pub(crate) fn unlocked(&self) -> Self {
        Self { pin: Arc::clone(&self.pin), _use: CacheUse::Again }
    }

    /// Whether it has to be made.
    pub(crate) fn is_new(&self) -> bool {
        !self.data().exists()
    }

    /// Gives what was prepared its place. Somebody else's first content stays: then what was prepared
    /// is for its owner to remove.
    pub(crate) fn fill(&self, prepared: &Path) -> io::Result<()> {
        self.pin.index().commit(self.pin.entry(), prepared, None).map(drop)
    }

    /// Forgets what it holds.
    pub(crate) fn empty(&self) -> io::Result<()> {
        self.pin.index().remove(&[self.pin.entry()], true).map(drop)
    }
}

/// The name of a cache: trust domains do not meet, and caches that begin with different things differ.
pub(crate) fn cache_name(domain: &Domain, id: &str, origin: &str) -> Digest {
    let mut hasher = Hasher::new();
    let scope = match domain.trust {
        Trust::Trusted => domain.project.to_string(),
        // No project is called that.
        Trust::Untrusted => format!("{}/untrusted", domain.project),
    };
    for part in [scope.as_str(), id, origin] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finish()
}

impl ContentStore {
    /// Takes a cache for use, when its sharing allows that.
    pub(crate) async fn cache(&self, name: Digest, sharing: Sharing) -> io::Result<Cache> {
        match sharing {
            Sharing::Shared => {
                let held = self.cache_lock(name, 0).read_owned().await;
                Ok(self.cache_at(name, 0, CacheUse::Shared(held)))
            }
            Sharing::Locked => {
                let held = self.cache_lock(name, 0).write_owned().await;
                Ok(self.cache_at(name, 0, CacheUse::Alone(held)))
            }
            Sharing::Private => {
                for number in 0..MAX_COPIES {
                    if let Ok(held) = self.cache_lock(name, number).try_write_owned() {
                        return Ok(self.cache_at(name, number, CacheUse::Alone(held)));
                    }
                }
                Err(io::Error::other(format!("{MAX_COPIES} copies of the cache are in use")))
            }
        }
    }

    fn cache_at(&self, name: Digest, number: u32, held: CacheUse) -> Cache {
        Cache { pin: Arc::new(self.index.pin(Entry::cache(name, number))), _use: held }
    }

    fn cache_lock(&self, name: Digest, number: u32) -> Arc<RwLock<()>> {
        let mut locks = self.cache_locks.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry((name, number)).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn name_of(project: &str, trust: Trust) -> Digest {
        let domain = Domain { project: project.parse().unwrap(), trust };
        cache_name(&domain, "/root/.cache", "")
    }

    fn name() -> Digest {
        name_of("default", Trust::Trusted)
    }

    #[tokio::test]
    async fn shared_ones_meet_private_ones_do_not_and_locked_ones_wait() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        let first = store.cache(name(), Sharing::Shared).await.unwrap();
        let second = store.cache(name(), Sharing::Shared).await.unwrap();
        assert_eq!(first.data(), second.data());
        let private = store.cache(name(), Sharing::Private).await.unwrap();
        let other = store.cache(name(), Sharing::Private).await.unwrap();
        assert_ne!(private.data(), first.data());
        assert_ne!(private.data(), other.data());
        let mut locked = Box::pin(store.cache(name(), Sharing::Locked));
        assert!(futures_util::poll!(locked.as_mut()).is_pending(), "it is in use");
        drop((first, second));
        let data = locked.await.unwrap().data();
        assert!(data.ends_with(format!("{}/0/data", name().hex())), "{}", data.display());
    }

    #[tokio::test]
    async fn the_first_content_stays_until_it_is_emptied() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        let cache = store.cache(name(), Sharing::Shared).await.unwrap();
        assert!(cache.is_new());
        for text in ["first", "second"] {
            let prepared = store.scratch().unwrap();
            fs::write(prepared.path().join("f"), text).unwrap();
            cache.fill(prepared.path()).unwrap();
        }
        assert_eq!(fs::read_to_string(cache.data().join("f")).unwrap(), "first");
        cache.empty().unwrap();
        assert!(cache.is_new());
    }

    #[test]
    fn caches_of_trust_domains_are_apart() {
        assert_ne!(name(), name_of("other", Trust::Trusted));
        assert_ne!(name(), name_of("default", Trust::Untrusted));
    }
}
