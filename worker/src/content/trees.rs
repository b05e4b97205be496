//! Trees that lie in layers of this worker: files of the next version of a context are mostly the
//! same, and then get a second name instead of being fetched again.
//!
//! Nobody writes to a file of a layer, so it can be in several. It counts as the same when path,
//! content, owner, mode and time are; only the times and owners of files are the disk's to tell.

use std::collections::VecDeque;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use common::ProjectName;
use common::tree::{Entry, EntryKind, Manifest, TreePath};

/// Trees that are remembered, newest first.
const MAX_TREES: usize = 16;

/// A tree whose files went into a layer as they were.
#[derive(Debug, Clone)]
pub(crate) struct KnownTree {
    /// Files of one project are not another's.
    pub(crate) project: ProjectName,
    /// The tree.
    pub(crate) manifest: Arc<Manifest>,
    /// A directory of the tree, and where in the layer it is.
    pub(crate) placed: (TreePath, TreePath),
    /// The layer.
    pub(crate) layer: PathBuf,
}

impl KnownTree {
    /// Where the same file is, if the tree has it.
    pub(crate) fn find(&self, wanted: &Entry) -> Option<PathBuf> {
        let found = self.manifest.get(&wanted.path)?;
        let content = |entry: &Entry| match &entry.kind {
            EntryKind::File { size_bytes, digest, .. } => Some((*size_bytes, *digest)),
            _ => None,
        };
        let is_same = content(found)? == content(wanted)?
            && (found.mode, found.uid, found.gid) == (wanted.mode, wanted.uid, wanted.gid)
            && found.mtime_secs == wanted.mtime_secs
            && found.xattrs == wanted.xattrs;
        if !is_same {
            return None;
        }
        let (from, to) = &self.placed;
        if !wanted.path.is_within(from) {
            return None;
        }
        let below = &wanted.path.as_bytes()[from.as_bytes().len()..];
        let below = below.strip_prefix(b"/").unwrap_or(below);
        let path = |bytes: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
        let place = self.layer.join(path(to.as_bytes()));
        Some(if below.is_empty() { place } else { place.join(path(below)) })
    }
}

/// The trees that are remembered.
#[derive(Debug, Default)]
pub(super) struct KnownTrees(Mutex<VecDeque<KnownTree>>);

impl KnownTrees {
    pub(super) fn add(&self, tree: KnownTree) {
        let mut trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        trees.push_front(tree);
        trees.truncate(MAX_TREES);
    }

    /// A layer has another name now.
    pub(super) fn moved(&self, from: &Path, to: &Path) {
        let mut trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for tree in trees.iter_mut().filter(|tree| tree.layer == from) {
            to.clone_into(&mut tree.layer);
        }
    }

    /// Those of a project.
    pub(super) fn of(&self, project: &ProjectName) -> Vec<KnownTree> {
        let trees = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        trees.iter().filter(|tree| tree.project == *project).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::Digest;

    fn file(path: &str, mode: u32) -> Entry {
        let (path, digest) = (TreePath::new(path).unwrap(), Digest::of(path.as_bytes()));
        let kind = EntryKind::File { size_bytes: 1, digest, parts: Vec::new() };
        Entry { path, mode, uid: 0, gid: 0, mtime_secs: 0, xattrs: Vec::new(), kind }
    }

    #[test]
    fn a_file_is_found_where_it_went_and_only_when_all_of_it_is_the_same() {
        let entries = vec![file("other", 0o644), file("src/a", 0o644), file("src/b", 0o644)];
        let manifest = Arc::new(Manifest { packs: Vec::new(), entries });
        let path = |text: &str| TreePath::new(text).unwrap();
        let trees = KnownTrees::default();
        let project: ProjectName = "default".parse().unwrap();
        let placed = (path("src"), path("app/code"));
        let layer = PathBuf::from("/tmp/upper");
        trees.add(KnownTree { project: project.clone(), manifest, placed, layer });
        trees.moved(Path::new("/tmp/upper"), Path::new("/layers/1"));
        let known = trees.of(&project);
        let find = |entry: Entry| known[0].find(&entry);
        assert_eq!(find(file("src/a", 0o644)), Some(PathBuf::from("/layers/1/app/code/a")));
        assert_eq!(find(file("other", 0o644)), None);
        assert_eq!(find(file("src/a", 0o755)), None);
        assert_eq!(find(file("src/c", 0o644)), None);
        assert!(trees.of(&"team".parse().unwrap()).is_empty());
    }
}
