//! From a manifest and packs to a directory.
//!
//! Three steps: [`Layout::prepare`] makes directories and links what is on the disk already,
//! [`Layout::write`] takes the bytes of each range as they arrive, in any order and from any thread,
//! [`Layout::finish`] makes links and sets what directories are to look like. Links are made last, so
//! that nothing is ever written through one; the destination is a fresh directory of the caller.
//!
//! A file that lies in one frame, as nearly all do, is made, checked and given its metadata in one
//! go: most of the time of a layout is the kernel's, per file.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::Digest;
use common::digest::Hasher;
use common::tree::{Entry, EntryKind, Manifest, Part, TreePath};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

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
    /// Files that were linked, by position.
    linked: HashSet<usize>,
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
    /// Makes the directories of the wanted entries, their parents included, in the existing empty
    /// directory `root`. `known` names files that are the same as an entry in all but its name, if
    /// there are any on the same file system: they get a second name and are not read.
    pub fn prepare(
        manifest: &Manifest,
        want: impl Fn(&Entry) -> bool,
        known: impl Fn(&Entry) -> Option<PathBuf>,
        root: &Path,
    ) -> Result<Self, LayoutError> {
        let entries = select(manifest, want);
        let (ranges, linked) = (Vec::new(), HashSet::new());
        let mut layout = Self { root: root.to_owned(), entries, ranges, linked };
        for (position, entry) in layout.entries.iter().enumerate() {
            let path = layout.on_disk(&entry.path);
            let made = match &entry.kind {
                EntryKind::Directory if entry.path == TreePath::root() => Ok(()),
                EntryKind::Directory => fs::create_dir(&path),
                EntryKind::File { parts, size_bytes, .. } => {
                    if known(entry).is_some_and(|known| link_same(&known, entry, &path)) {
                        layout.linked.insert(position);
                        continue;
                    }
                    if parts.len() == 1 {
                        // It lies in one frame: it is made when that comes.
                        Ok(())
                    } else {
                        File::create_new(&path).and_then(|file| file.set_len(*size_bytes))
                    }
                }
                _ => Ok(()),
            };
            made.map_err(|source| LayoutError::Write { path, source })?;
        }
        layout.ranges = plan(manifest, &layout.entries, &layout.linked);
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
                self.write_run(&self.entries[run.entry], run.at, slice)?;
            }
        }
        Ok(())
    }

    fn write_run(&self, entry: &Entry, at: u64, content: &[u8]) -> Result<(), LayoutError> {
        let path = self.on_disk(&entry.path);
        let EntryKind::File { parts, digest, .. } = &entry.kind else { return Ok(()) };
        let written = if parts.len() == 1 {
            if Digest::of(content) != *digest {
                return Err(wrong_digest(&entry.path));
            }
            write_whole(&path, entry, content)
        } else {
            let file = File::options().write(true).open(&path);
            file.and_then(|file| write_at(&file, content, at)).map(drop)
        };
        written.map_err(|source| LayoutError::Write { path, source })
    }

    /// Checks what came in several frames and does the rest. Returns the bytes of all files.
    pub fn finish(self) -> Result<u64, LayoutError> {
        let mut content_bytes = 0;
        for (position, entry) in self.entries.iter().enumerate() {
            if let EntryKind::File { size_bytes, digest, parts } = &entry.kind {
                if parts.len() != 1 && !self.linked.contains(&position) {
                    self.check_file(&entry.path, digest)?;
                    let path = self.on_disk(&entry.path);
                    set_metadata(entry, &path, true)
                        .map_err(|source| LayoutError::Write { path, source })?;
                }
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
        Err(wrong_digest(path))
    }

    fn finish_entry(&self, entry: &Entry, path: &Path) -> io::Result<()> {
        let mode = Mode::from_raw_mode(entry.mode);
        match &entry.kind {
            EntryKind::Directory | EntryKind::File { .. } | EntryKind::Unsent => Ok(()),
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

/// Writes content but the holes in it, which read as zeros. Returns where what was written ends.
fn write_at(file: &File, content: &[u8], at: u64) -> io::Result<u64> {
    let mut end = at;
    for (skip, part) in common::holes::runs(content) {
        file.write_all_at(part, at + skip as u64)?;
        end = at + (skip + part.len()) as u64;
    }
    Ok(end)
}

fn wrong_digest(path: &TreePath) -> LayoutError {
    LayoutError::Damaged { path: path.display(), problem: "its digest is wrong".to_owned() }
}

/// Makes a file with all that belongs to it.
fn write_whole(path: &Path, entry: &Entry, content: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    if write_at(&file, content, 0)? < content.len() as u64 {
        file.set_len(content.len() as u64)?;
    }
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    // New files are ours: the directories that this makes pass no group on yet.
    if (uid, gid) != (rustix::process::geteuid(), rustix::process::getegid()) {
        rustix::fs::fchown(&file, Some(uid), Some(gid))?;
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode))?;
    for (name, value) in &entry.xattrs {
        rustix::fs::fsetxattr(&file, name.as_str(), value, XattrFlags::empty())?;
    }
    rustix::fs::futimens(&file, &times(entry))?;
    Ok(())
}

/// Gives a file that looks like `entry` the name `path` too; whether that was possible. Its content
/// is what `known` promises, the rest is checked.
fn link_same(known: &Path, entry: &Entry, path: &Path) -> bool {
    let EntryKind::File { size_bytes, .. } = &entry.kind else { return false };
    let looks_same = |found: fs::Metadata| {
        found.is_file()
            && found.len() == *size_bytes
            && found.mode() & 0o7777 == entry.mode
            && (found.uid(), found.gid()) == (entry.uid, entry.gid)
            && found.mtime() == entry.mtime_secs
    };
    if !fs::symlink_metadata(known).is_ok_and(looks_same) {
        return false;
    }
    fs::hard_link(known, path).is_ok()
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime_secs, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
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
    rustix::fs::utimensat(CWD, path, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// The wanted entries that there are, with their parents and the files that hard links name.
fn select(manifest: &Manifest, want: impl Fn(&Entry) -> bool) -> Vec<Entry> {
    let mut wanted: BTreeMap<&TreePath, &Entry> = BTreeMap::new();
    let is_there = |entry: &&Entry| entry.kind != EntryKind::Unsent;
    for entry in manifest.entries.iter().filter(is_there).filter(|entry| want(entry)) {
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

/// The frames that hold the entries but those in `skip`, neighbours merged.
fn plan(manifest: &Manifest, entries: &[Entry], skip: &HashSet<usize>) -> Vec<Range> {
    let mut frames: BTreeMap<(u32, u64), Frame> = BTreeMap::new();
    for (position, entry) in entries.iter().enumerate() {
        if skip.contains(&position) {
            continue;
        }
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
