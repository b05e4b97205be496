//! Trees of files: what a context or a slice consists of, without the files' bytes.
//!
//! A [`Manifest`] lists every entry with its place in a pack. Its binary form and the packs are the
//! job of crate `blobstore` (`docs/formats/manifest.md`); the planner reads it to compute keys.

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::digest::Hasher;

/// A path in a tree: bytes without leading or trailing slash, no empty, `.` or `..` component.
/// The root is the empty path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "PathBytes", into = "PathBytes")]
pub struct TreePath(Vec<u8>);

/// A path that is absolute, climbs, or has empty components.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid path in a tree: {0:?}")]
pub struct InvalidTreePath(String);

impl TreePath {
    /// The root of the tree.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Checks and takes the bytes of a relative path.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, InvalidTreePath> {
        let bytes = bytes.into();
        let bad =
            |part: &[u8]| part.is_empty() || part == b"." || part == b".." || part.contains(&0);
        // Linux refuses longer paths (PATH_MAX), so no tree that can be laid out has one.
        if bytes.len() >= 4096 || (!bytes.is_empty() && bytes.split(|b| *b == b'/').any(bad)) {
            return Err(InvalidTreePath(String::from_utf8_lossy(&bytes).into_owned()));
        }
        Ok(Self(bytes))
    }

    /// The bytes, without leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path for people; bytes that are no UTF-8 are replaced.
    pub fn display(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// The directory that holds this entry; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(Self(self.0[..end].to_vec()))
    }

    /// The last component; empty for the root.
    pub fn file_name(&self) -> &[u8] {
        let start = self.0.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        &self.0[start..]
    }

    /// Whether this is `ancestor` or lies below it.
    pub fn is_within(&self, ancestor: &Self) -> bool {
        ancestor.0.is_empty()
            || self.0 == ancestor.0
            || (self.0.starts_with(&ancestor.0) && self.0[ancestor.0.len()] == b'/')
    }
}

impl std::fmt::Debug for TreePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.display())
    }
}

/// Serialised as text where it is UTF-8, else as bytes.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathBytes {
    Text(String),
    Bytes(Vec<u8>),
}

impl TryFrom<PathBytes> for TreePath {
    type Error = InvalidTreePath;

    fn try_from(bytes: PathBytes) -> Result<Self, Self::Error> {
        match bytes {
            PathBytes::Text(text) => Self::new(text),
            PathBytes::Bytes(bytes) => Self::new(bytes),
        }
    }
}

impl From<TreePath> for PathBytes {
    fn from(path: TreePath) -> Self {
        match String::from_utf8(path.0) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Bytes(error.into_bytes()),
        }
    }
}

/// Where a run of a file's bytes lies: some bytes of one zstd frame of one pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Position in [`Manifest::packs`].
    pub pack: u32,
    /// Where the frame starts in the pack, in bytes.
    pub frame_offset: u64,
    /// Length of the compressed frame in bytes.
    pub frame_bytes: u64,
    /// Where the run starts in the decompressed frame.
    pub skip_bytes: u64,
    /// Length of the run in bytes.
    pub size_bytes: u64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Length in bytes.
        size_bytes: u64,
        /// Digest of the content.
        digest: Digest,
        /// The content, in order; empty for an empty file.
        parts: Vec<Part>,
    },
    /// Another name of a file that is listed earlier.
    Hardlink {
        /// The earlier entry.
        target: TreePath,
    },
    /// A symbolic link; the target is any bytes.
    Symlink {
        /// Where it points, as stored in the link.
        target: Vec<u8>,
    },
    /// A file that the client kept back, since nothing asked for it; as the root, which is the only
    /// entry then, everything.
    Unsent,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its path.
    pub path: TreePath,
    /// Permission bits with setuid, setgid and sticky: `mode & 0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in whole seconds since 1970. Never part of a key.
    pub mtime_secs: i64,
    /// Extended attributes, sorted by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<(String, Vec<u8>)>,
    /// What it is.
    pub kind: EntryKind,
}

/// One pack that a manifest refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pack {
    /// Digest of the pack's bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub size_bytes: u64,
}

/// A whole tree, entries sorted by the bytes of their paths with the root first, so that a
/// directory always comes before what it holds. Every parent directory is listed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// The packs that hold the files' bytes.
    pub packs: Vec<Pack>,
    /// The entries.
    pub entries: Vec<Entry>,
}

/// Whether the owners of files are part of a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// They are.
    Counted,
    /// They are not: who reads the files gives them new ones.
    Ignored,
}

impl Manifest {
    /// A tree of which nothing is told but that it is there.
    pub fn kept_back() -> Self {
        let root = Entry {
            path: TreePath::root(),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime_secs: 0,
            xattrs: Vec::new(),
            kind: EntryKind::Unsent,
        };
        Self { packs: Vec::new(), entries: vec![root] }
    }

    /// The entry at `path`, by binary search.
    pub fn get(&self, path: &TreePath) -> Option<&Entry> {
        let found = self.entries.binary_search_by(|entry| entry.path.cmp(path)).ok()?;
        self.entries.get(found)
    }

    /// Digest of some of the entries, in their order: path, type, mode, capability, link and content of
    /// each; never times. A hard link counts as the file that it is: the entry that it names may not be
    /// among them. Keys rest on it: changing it makes stored ones worthless.
    pub fn digest_of<'a>(
        &self,
        entries: impl IntoIterator<Item = &'a Entry>,
        owners: Owners,
    ) -> Digest {
        let mut hasher = Hasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for entry in entries {
            field(entry.path.as_bytes());
            field(&entry.mode.to_le_bytes());
            if owners == Owners::Counted {
                field(&entry.uid.to_le_bytes());
                field(&entry.gid.to_le_bytes());
            }
            field(&(entry.xattrs.len() as u64).to_le_bytes());
            for (name, value) in &entry.xattrs {
                field(name.as_bytes());
                field(value);
            }
            let kind = match &entry.kind {
                EntryKind::Hardlink { target } => {
                    self.get(target).map_or(&entry.kind, |entry| &entry.kind)
                }
                kind => kind,
            };
            match kind {
                EntryKind::Directory => field(b"directory"),
                EntryKind::File { digest, .. } => {
                    field(b"file");
                    field(digest.as_bytes());
                }
                EntryKind::Hardlink { target } => {
                    field(b"hardlink");
                    field(target.as_bytes());
                }
                EntryKind::Symlink { target } => {
                    field(b"symlink");
                    field(target);
                }
                // Nobody asks for one that was not sent.
                EntryKind::Unsent => field(b"unsent"),
                EntryKind::Fifo => field(b"fifo"),
                EntryKind::CharDevice { major, minor } => {
                    field(b"character device");
                    field(&major.to_le_bytes());
                    field(&minor.to_le_bytes());
                }
                EntryKind::BlockDevice { major, minor } => {
                    field(b"block device");
                    field(&major.to_le_bytes());
                    field(&minor.to_le_bytes());
                }
            }
        }
        hasher.finish()
    }

    /// Bytes of all regular files.
    pub fn content_bytes(&self) -> u64 {
        self.entries
            .iter()
            .map(|entry| match &entry.kind {
                EntryKind::File { size_bytes, .. } => *size_bytes,
                _ => 0,
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_leave_the_tree_are_refused() {
        for path in ["/etc", "a//b", "a/../b", "..", "./a", "a/", "a\0b"] {
            assert!(TreePath::new(path).is_err(), "{path:?}");
        }
        for path in ["", "a", "a/b.c", "..a", "a/...", "ü"] {
            assert!(TreePath::new(path).is_ok(), "{path:?}");
        }
    }

    #[test]
    fn within_respects_component_borders() {
        let path = |text: &str| TreePath::new(text).unwrap();
        assert!(path("a/b").is_within(&path("a")));
        assert!(path("a").is_within(&path("a")));
        assert!(path("a").is_within(&TreePath::root()));
        assert!(!path("ab").is_within(&path("a")));
    }
}
