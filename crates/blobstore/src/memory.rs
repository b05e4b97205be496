//! What is known of a tree from the last time: then an unchanged tree costs one walk.
//!
//! A file counts as unchanged when its size, times, inode and device are: changes of content change
//! the time of the last status change, which nobody can set. Files that changed just before they
//! were read are not remembered, since the clock of a file system is coarse.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use common::Digest;
use serde::{Deserialize, Serialize};

use crate::pack::MadePack;

/// Raise it when the meaning of what is stored changes.
const VERSION: u32 = 1;
/// Longest stored form, in bytes.
const MAX_BYTES: u64 = 512 << 20;
/// Files that changed so shortly before they were read may change again unseen.
const SETTLED_SECS: i64 = 2;

/// What tells that a file is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    inode: u64,
    device: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            size_bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }
}

/// Digests of files and packs of one tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    version: u32,
    /// Packs depend on the compressor.
    zstd: u32,
    files: HashMap<Vec<u8>, (Stamp, Digest)>,
    packs: HashMap<Digest, MadePack>,
    /// When the tree was read, in seconds since 1970.
    #[serde(skip)]
    read_at: i64,
}

impl Default for Memory {
    fn default() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            version: VERSION,
            zstd: zstd::zstd_safe::version_number(),
            files: HashMap::new(),
            packs: HashMap::new(),
            read_at: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        }
    }
}

impl Memory {
    /// Reads what was stored; nothing is known where that cannot be used.
    pub fn load(path: &Path) -> Self {
        let read = || -> Option<Self> {
            let file = std::fs::File::open(path).ok()?;
            let decoder = zstd::Decoder::new(file).ok()?;
            ciborium::from_reader(io::BufReader::new(decoder.take(MAX_BYTES))).ok()
        };
        let new = Self::default();
        match read() {
            Some(found) if (found.version, found.zstd) == (new.version, new.zstd) => {
                Self { read_at: new.read_at, ..found }
            }
            _ => new,
        }
    }

    /// Stores it, whole or not at all.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        let name: PathBuf = format!(
            "{}.{}",
            path.file_name().unwrap_or_default().to_string_lossy(),
            std::process::id()
        )
        .into();
        let unfinished = directory.join(name);
        let write = || -> io::Result<()> {
            let mut encoder = zstd::Encoder::new(std::fs::File::create(&unfinished)?, 1)?;
            ciborium::into_writer(self, &mut encoder).map_err(io::Error::other)?;
            encoder.finish()?.flush()?;
            std::fs::rename(&unfinished, path)
        };
        write().inspect_err(|_| {
            let _ = std::fs::remove_file(&unfinished);
        })
    }

    /// The digest of a file that is the same as it was.
    pub(crate) fn file(&self, path: &Path, metadata: &Metadata) -> Option<Digest> {
        let (stamp, digest) = self.files.get(path.as_os_str().as_bytes())?;
        (*stamp == Stamp::of(metadata)).then_some(*digest)
    }

    /// Remembers a file.
    pub(crate) fn add_file(&mut self, path: &Path, metadata: &Metadata, digest: Digest) {
        let newest = metadata.ctime().max(metadata.mtime());
        if newest + SETTLED_SECS < self.read_at {
            let stamp = Stamp::of(metadata);
            self.files.insert(path.as_os_str().as_bytes().to_vec(), (stamp, digest));
        }
    }

    /// The pack of this key.
    pub(crate) fn pack(&self, key: &Digest) -> Option<&MadePack> {
        self.packs.get(key)
    }

    /// Remembers a pack.
    pub(crate) fn add_pack(&mut self, key: Digest, made: MadePack) {
        self.packs.insert(key, made);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_until_anything_about_it_changes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        std::fs::write(&path, "content").unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        let digest = Digest::of(b"content");
        let mut memory = Memory { read_at: metadata.ctime() + 60, ..Memory::default() };
        memory.add_file(&path, &metadata, digest);
        let stored = root.path().join("memory");
        memory.store(&stored).unwrap();
        let again = Memory::load(&stored);
        assert_eq!(again.file(&path, &metadata), Some(digest));
        // The same length and the same time of modification, but not the same file.
        let time = metadata.modified().unwrap();
        std::fs::write(&path, "CONTENT").unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        let changed = std::fs::metadata(&path).unwrap();
        assert_eq!((changed.len(), changed.mtime()), (metadata.len(), metadata.mtime()));
        assert_eq!(again.file(&path, &changed), None);
    }

    #[test]
    fn what_changed_a_moment_ago_is_not_trusted() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        std::fs::write(&path, "content").unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        let mut memory = Memory::default();
        memory.add_file(&path, &metadata, Digest::of(b"content"));
        assert_eq!(memory.file(&path, &metadata), None);
    }

    #[test]
    fn damaged_memories_are_no_memories() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("memory");
        for bytes in [&b""[..], b"nonsense", &[0x28, 0xb5, 0x2f, 0xfd, 0, 0]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(Memory::load(&path).files.is_empty());
        }
    }
}
