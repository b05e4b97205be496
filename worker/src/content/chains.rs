//! Root file systems of stages that ran here: others read them in place.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use common::StageId;
use rustix::fs::{Mode, OFlags};

use super::ContentStore;
use super::entry::Kind;
use super::index::Pin;

/// Builds are short; what was not read for so many stages is not read any more.
const MAX_CHAINS: usize = 1000;

/// Some layers, lowest first. They stay as long as this does.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    pub(crate) lowers: Vec<PathBuf>,
    pub(crate) pins: Vec<Pin>,
    pub(crate) scratch: Vec<Arc<Scratch>>,
}

/// Layers that may get another name meanwhile: the paths of this chain stay good as long as it does.
#[derive(Debug)]
pub(crate) struct OpenChain {
    pub(crate) chain: Chain,
    _open: Vec<OwnedFd>,
}

/// A directory for unfinished things that several may use: it goes when all of them have dropped it.
/// When a layer in it gets its name in the store, it stays there as long.
#[derive(Debug)]
pub(crate) struct Scratch {
    directory: tempfile::TempDir,
    layer: OnceLock<Pin>,
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Keeps the layer that was made here.
    pub(crate) fn keep(&self, layer: Pin) {
        // The first one is as good.
        let _ = self.layer.set(layer);
    }
}

#[derive(Debug, Default)]
pub(super) struct Chains(Mutex<HashMap<StageId, Remembered>>);

/// The layers in the store are not held, the others are.
#[derive(Debug, Clone)]
struct Remembered {
    lowers: Vec<PathBuf>,
    scratch: Vec<Arc<Scratch>>,
}

impl ContentStore {
    /// A fresh directory for unfinished things that others may read.
    pub(crate) fn shared_scratch(&self) -> io::Result<Arc<Scratch>> {
        Ok(Arc::new(Scratch { directory: self.scratch()?, layer: OnceLock::new() }))
    }

    /// Remembers the root file system of a stage that ran here: layers of the store, and directories
    /// below `scratch`.
    pub(crate) fn remember_chain(
        &self,
        stage: StageId,
        lowers: Vec<PathBuf>,
        scratch: Vec<Arc<Scratch>>,
    ) {
        let mut chains = self.chains.0.lock().unwrap_or_else(PoisonError::into_inner);
        if chains.len() > MAX_CHAINS {
            chains.clear();
        }
        chains.insert(stage, Remembered { lowers, scratch });
    }

    /// Where the layers of a stage that ran here are by now.
    pub(crate) fn places(&self, stage: StageId) -> Option<Vec<PathBuf>> {
        let chains = self.chains.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(chains.get(&stage)?.lowers.clone())
    }

    /// Gives a layer its name. Nobody who asks for a chain sees the moment between its two places.
    pub(super) fn name_layer(
        &self,
        from: &Path,
        name: impl FnOnce() -> io::Result<Pin>,
    ) -> io::Result<Pin> {
        let mut chains = self.chains.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pin = name()?;
        let place = pin.path();
        let lowers = chains.values_mut().flat_map(|chain| &mut chain.lowers);
        for lower in lowers.filter(|lower| *lower == from) {
            place.clone_into(lower);
        }
        Ok(pin)
    }

    /// Forgets a root file system that came to nothing.
    pub(crate) fn forget_chain(&self, stage: StageId) {
        self.chains.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&stage);
    }

    /// Opens the root file system of a stage that ran here, if all of it is still there.
    pub(crate) fn open_chain(&self, stage: StageId) -> Option<OpenChain> {
        let chains = self.chains.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Remembered { lowers, scratch } = chains.get(&stage)?.clone();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let (mut pins, mut open) = (Vec::new(), Vec::new());
        for lower in &lowers {
            if !scratch.iter().any(|scratch| lower.starts_with(scratch.path())) {
                pins.push(self.find_place(lower).filter(|pin| pin.entry().kind == Kind::Layer)?);
            }
            open.push(rustix::fs::open(lower, flags, Mode::empty()).ok()?);
        }
        let path = |open: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        let lowers = open.iter().map(path).collect();
        Some(OpenChain { chain: Chain { lowers, pins, scratch }, _open: open })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::Digest;
    use std::fs;

    fn layer(store: &ContentStore, name: &[u8]) -> Pin {
        let scratch = store.scratch().unwrap();
        let layer = scratch.path().join("layer");
        fs::create_dir(&layer).unwrap();
        store.commit_layer(&layer, &Digest::of(name), 0).unwrap()
    }

    #[test]
    fn a_chain_that_lost_a_layer_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        let stage = StageId(uuid::Uuid::now_v7());
        let (low, high) = (layer(&store, b"low"), layer(&store, b"high"));
        let entry = high.entry();
        store.remember_chain(stage, vec![low.path(), high.path()], Vec::new());
        drop((low, high));
        let chain = store.open_chain(stage).unwrap();
        assert_eq!(store.remove(&[entry]).unwrap().entries, 0, "it is in use");
        drop(chain);
        assert_eq!(store.remove(&[entry]).unwrap().entries, 1);
        assert!(store.open_chain(stage).is_none());
    }

    #[test]
    fn who_reads_a_layer_that_is_being_named_keeps_it() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        let stage = StageId(uuid::Uuid::now_v7());
        let scratch = store.shared_scratch().unwrap();
        let upper = scratch.path().join("upper");
        fs::create_dir(&upper).unwrap();
        store.remember_chain(stage, vec![upper.clone()], vec![Arc::clone(&scratch)]);
        let reader = store.open_chain(stage).unwrap();
        let pin = store.commit_layer(&upper, &Digest::of(b"made"), 0).unwrap();
        let (entry, place) = (pin.entry(), pin.path());
        scratch.keep(pin);
        store.remember_chain(stage, vec![place], Vec::new());
        drop(scratch);
        assert_eq!(store.remove(&[entry]).unwrap().entries, 0, "somebody reads it");
        drop(reader);
        assert_eq!(store.remove(&[entry]).unwrap().entries, 1);
    }

    #[test]
    fn a_forgotten_chain_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        let stage = StageId(uuid::Uuid::now_v7());
        let scratch = store.shared_scratch().unwrap();
        let path = scratch.path().to_owned();
        store.remember_chain(stage, vec![path.clone()], vec![scratch]);
        assert!(store.open_chain(stage).is_some());
        store.forget_chain(stage);
        assert!(store.open_chain(stage).is_none() && !path.exists());
    }
}
