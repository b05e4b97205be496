//! From a manifest and packs to a directory.
//!
//! Three steps: [`Layout::prepare`] makes directories and empty files, [`Layout::write`] takes the
//! bytes of each range as they arrive, in any order and from any thread, [`Layout::finish`] checks
//! every file's digest and sets owners, modes, times and links. Links are made last, so that
//! nothing is ever written through one; the destination is a fresh directory of the caller.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::Digest;
use common::digest::Hasher;
use common::tree::{Entry, EntryKind, Manifest, Part, TreePath};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid};

use crate::manifest::MAX_FRAME_BYTES;

/// Frames closer than this are read in one request: a request costs more than these bytes.
const MERGE_GAP_BYTES: u64 = 256 << 10;
/// Longest range of one request.
const MAX_RANGE_BYTES: u64 = 16 << 20;

/// Bytes of one pack to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The pack.
    pub pack: Digest,
    /// Where to start.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    frames: Vec<Frame>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    offset: u64,
    length: u64,
    runs: Vec<Run>,
}

/// Some bytes of a frame and where they belong.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    entry: usize,
    skip: u64,
    size: u64,
    at: u64,
}

/// A tree that is being laid out.
#[derive(Debug)]
pub struct Layout {
    root: PathBuf,
    entries: Vec<Entry>,
    ranges: Vec<Range>,
}

/// Why a tree could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A pack does not hold what the manifest says.
    #[error("the stored content of {path:?} is damaged: {problem}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The disk.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Layout {
    /// Makes the directories and empty files of the wanted entries, their parents included, in the
    /// existing empty directory `root`.
    pub fn prepare(
        manifest: &Manifest,
        want: impl Fn(&Entry) -> bool,
        root: &Path,
    ) -> Result<Self, LayoutError> {
        let entries = select(manifest, want);
        let ranges = plan(manifest, &entries);
        let layout = Self { root: root.to_owned(), entries, ranges };
        for entry in &layout.entries {
            let path = layout.on_disk(&entry.path);
            match entry.kind {
                EntryKind::Directory if entry.path == TreePath::root() => Ok(()),
                EntryKind::Directory => fs::create_dir(&path),
                EntryKind::File { size_bytes, .. } => {
                    File::create_new(&path).and_then(|file| file.set_len(size_bytes))
                }
                _ => Ok(()),
            }
            .map_err(|source| LayoutError::Write { path, source })?;
        }
        Ok(layout)
    }

    /// What has to be read.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// Takes the bytes of one range.
    pub fn write(&self, range: &Range, bytes: &[u8]) -> Result<(), LayoutError> {
        for frame in &range.frames {
            let name = || frame.runs.first().map_or(String::new(), |run| self.shown(run.entry));
            let damaged = |problem: String| LayoutError::Damaged { path: name(), problem };
            let start = usize::try_from(frame.offset - range.offset).unwrap_or(usize::MAX);
            let end = start.saturating_add(usize::try_from(frame.length).unwrap_or(usize::MAX));
            let compressed =
                bytes.get(start..end).ok_or_else(|| damaged("it is truncated".to_owned()))?;
            let mut content = Vec::new();
            zstd::Decoder::new(compressed)
                .and_then(|decoder| decoder.take(MAX_FRAME_BYTES).read_to_end(&mut content))
                .map_err(|error| damaged(error.to_string()))?;
            for run in &frame.runs {
                let skip = usize::try_from(run.skip).unwrap_or(usize::MAX);
                let end = skip.saturating_add(usize::try_from(run.size).unwrap_or(usize::MAX));
                let slice = content
                    .get(skip..end)
                    .ok_or_else(|| damaged("a frame is too short".to_owned()))?;
                let path = self.on_disk(&self.entries[run.entry].path);
                File::options()
                    .write(true)
                    .open(&path)
                    .and_then(|file| {
                        // What is not written is a hole, which reads as zeros.
                        let mut parts = common::holes::runs(slice).into_iter();
                        parts.try_for_each(|(at, part)| file.write_all_at(part, run.at + at as u64))
                    })
                    .map_err(|source| LayoutError::Write { path, source })?;
            }
        }
        Ok(())
    }

    /// Checks every file and sets everything but content. Returns the bytes of all files.
    pub fn finish(self) -> Result<u64, LayoutError> {
        let mut content_bytes = 0;
        for entry in &self.entries {
            if let EntryKind::File { size_bytes, digest, .. } = &entry.kind {
                self.check_file(&entry.path, digest)?;
                content_bytes += size_bytes;
            }
        }
        // Children before their directory, so that its time and mode stay; hard links come after
        // the file that they name, which keeps its metadata.
        for entry in self.entries.iter().filter(|entry| !matches!(entry.kind, EntryKind::Directory))
        {
            let path = self.on_disk(&entry.path);
            self.finish_entry(entry, &path)
                .map_err(|source| LayoutError::Write { path, source })?;
        }
        for entry in self.entries.iter().rev() {
            if matches!(entry.kind, EntryKind::Directory) {
                let path = self.on_disk(&entry.path);
                set_metadata(entry, &path, true)
                    .map_err(|source| LayoutError::Write { path, source })?;
            }
        }
        Ok(content_bytes)
    }

    fn check_file(&self, path: &TreePath, digest: &Digest) -> Result<(), LayoutError> {
        let on_disk = self.on_disk(path);
        let mut hasher = Hasher::new();
        File::open(&on_disk)
            .and_then(|mut file| io::copy(&mut file, &mut hasher))
            .map_err(|source| LayoutError::Write { path: on_disk, source })?;
        if hasher.finish() == *digest {
            return Ok(());
        }
        let problem = "its digest is wrong".to_owned();
        Err(LayoutError::Damaged { path: path.display(), problem })
    }

    fn finish_entry(&self, entry: &Entry, path: &Path) -> io::Result<()> {
        let mode = Mode::from_raw_mode(entry.mode);
        match &entry.kind {
            EntryKind::Directory => Ok(()),
            EntryKind::File { .. } => set_metadata(entry, path, true),
            EntryKind::Hardlink { target } => fs::hard_link(self.on_disk(target), path),
            EntryKind::Symlink { target } => {
                std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), path)?;
                set_metadata(entry, path, false)
            }
            EntryKind::Fifo => {
                rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0)?;
                set_metadata(entry, path, true)
            }
            EntryKind::CharDevice { major, minor } => {
                let device = rustix::fs::makedev(*major, *minor);
                rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, mode, device)?;
                set_metadata(entry, path, true)
            }
            EntryKind::BlockDevice { major, minor } => {
                let device = rustix::fs::makedev(*major, *minor);
                rustix::fs::mknodat(CWD, path, FileType::BlockDevice, mode, device)?;
                set_metadata(entry, path, true)
            }
        }
    }

    fn shown(&self, entry: usize) -> String {
        self.entries[entry].path.display()
    }

    fn on_disk(&self, path: &TreePath) -> PathBuf {
        self.root.join(Path::new(std::ffi::OsStr::from_bytes(path.as_bytes())))
    }
}

fn set_metadata(entry: &Entry, path: &Path, has_mode: bool) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if has_mode {
        fs::set_permissions(path, fs::Permissions::from_mode(entry.mode))?;
        for (name, value) in &entry.xattrs {
            xattr::set(path, name, value)?;
        }
    }
    let time = Timespec { tv_sec: entry.mtime_secs, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// The wanted entries, with their parents and the files that hard links name.
fn select(manifest: &Manifest, want: impl Fn(&Entry) -> bool) -> Vec<Entry> {
    let mut wanted: BTreeMap<&TreePath, &Entry> = BTreeMap::new();
    for entry in manifest.entries.iter().filter(|entry| want(entry)) {
        wanted.insert(&entry.path, entry);
        if let EntryKind::Hardlink { target } = &entry.kind
            && let Some(target) = manifest.get(target)
        {
            wanted.insert(&target.path, target);
        }
    }
    let mut parents = Vec::new();
    for path in wanted.keys() {
        let mut parent = path.parent();
        while let Some(path) = parent {
            parent = path.parent();
            parents.extend(manifest.get(&path));
        }
    }
    wanted.extend(parents.into_iter().map(|entry| (&entry.path, entry)));
    wanted.into_values().cloned().collect()
}

/// The frames that hold the entries, neighbours merged.
fn plan(manifest: &Manifest, entries: &[Entry]) -> Vec<Range> {
    let mut frames: BTreeMap<(u32, u64), Frame> = BTreeMap::new();
    for (position, entry) in entries.iter().enumerate() {
        let EntryKind::File { parts, .. } = &entry.kind else { continue };
        let mut at = 0;
        for Part { pack, frame_offset, frame_bytes, skip_bytes, size_bytes } in
            parts.iter().copied()
        {
            let frame = frames.entry((pack, frame_offset)).or_insert_with(|| Frame {
                offset: frame_offset,
                length: frame_bytes,
                runs: Vec::new(),
            });
            frame.runs.push(Run { entry: position, skip: skip_bytes, size: size_bytes, at });
            at += size_bytes;
        }
    }
    let mut ranges: Vec<(u32, Range)> = Vec::new();
    for ((pack, offset), frame) in frames {
        let end = offset + frame.length;
        match ranges.last_mut() {
            Some((last_pack, range))
                if *last_pack == pack
                    && offset >= range.offset + range.length
                    && offset - (range.offset + range.length) <= MERGE_GAP_BYTES
                    && end - range.offset <= MAX_RANGE_BYTES =>
            {
                range.length = end - range.offset;
                range.frames.push(frame);
            }
            _ => {
                let digest = manifest.packs[pack as usize].digest;
                let length = frame.length;
                ranges.push((pack, Range { pack: digest, offset, length, frames: vec![frame] }));
            }
        }
    }
    ranges.into_iter().map(|(_, range)| range).collect()
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
