//! From a directory to a manifest and packs.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use common::Digest;
use common::digest::Hasher;
use common::tree::{Entry, EntryKind, Manifest, Pack, TreePath};
use rayon::prelude::*;

use crate::manifest::{self, ManifestError};
use crate::memory::Memory;
use crate::pack::{MadePack, PackInput, PackPlan, Planner};

/// Most entries of one tree.
const MAX_ENTRIES: usize = 2_000_000;

/// Content of files that is in memory at once, and the longest file whose content is kept there.
const WINDOW_BYTES: u64 = 48 << 20;
const MAX_HELD_BYTES: u64 = 4 << 20;

/// What to do with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is part of the tree.
    Keep,
    /// It is not, but what is below it may be: then it is listed after all.
    Skip,
    /// It is not, nor is anything below it.
    SkipTree,
}

/// Whose the entries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// As on disk.
    Keep,
    /// Root's: a context has no owners.
    Root,
}

/// A scanned tree.
#[derive(Debug)]
pub struct Scan {
    /// The tree.
    pub manifest: Manifest,
    /// Its stored form.
    pub encoded: Vec<u8>,
    /// Digest of the stored form.
    pub digest: Digest,
    packs: Vec<Packed>,
    files: Vec<PackInput>,
    directory: PathBuf,
    memory: Memory,
}

/// A pack of a scanned tree.
#[derive(Debug)]
struct Packed {
    made: MadePack,
    plan: PackPlan,
    /// Where it is, if it was made.
    path: Option<PathBuf>,
}

impl Scan {
    /// The packs it refers to.
    pub fn packs(&self) -> impl Iterator<Item = Pack> {
        self.packs.iter().map(|packed| packed.made.pack)
    }

    /// A pack as a file, made now where it was known from the last time.
    pub fn pack_file(&self, digest: &Digest) -> Result<PathBuf, ScanError> {
        let found = self.packs.iter().position(|packed| packed.made.pack.digest == *digest);
        let fail = |source| ScanError::Read { path: self.directory.clone(), source };
        let Some(number) = found else { return Err(fail(io::ErrorKind::NotFound.into())) };
        let packed = &self.packs[number];
        if let Some(path) = &packed.path {
            return Ok(path.clone());
        }
        let path = self.directory.join(format!("again-{number}"));
        let made = packed.plan.make(&self.files, &HashMap::new(), &path).map_err(fail)?;
        if made.pack.digest == *digest { Ok(path) } else { Err(fail(changed())) }
    }

    /// What is worth to be known the next time.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }
}

fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a file changed while it was read")
}

/// Why a tree cannot be scanned.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A file or directory cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A path that no tree can have.
    #[error("unusable path {0}")]
    Path(PathBuf),
    /// More entries than a manifest holds.
    #[error("more than {MAX_ENTRIES} files: exclude some with .dockerignore")]
    TooMany,
    /// The manifest cannot be stored.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// Which of a tree's entries are wanted, one answer for each: names and links are there already,
/// content is not.
pub type Choice<'a> = dyn Fn(&Manifest) -> Vec<bool> + 'a;

/// Scans a whole directory. `filter` is asked about every entry with its path and whether it is a
/// directory. Of files that `choice` does not want only the names are told, and they are not read.
/// Packs are written into the existing directory `pack_directory`; those that `memory` knows are not.
pub fn scan(
    root: &Path,
    owner: Owner,
    filter: &mut dyn FnMut(&TreePath, bool) -> Verdict,
    choice: &Choice<'_>,
    (pack_directory, memory): (&Path, &Memory),
) -> Result<Scan, ScanError> {
    let mut paths = Vec::new();
    walk(root, &TreePath::root(), filter, &mut paths)?;
    build(root, paths, owner, choice, (pack_directory, memory))
}

/// A tree of which nothing is told: it is not even looked at.
pub fn kept_back() -> Result<Scan, ScanError> {
    let manifest = Manifest::kept_back();
    let encoded = manifest::encode(&manifest)?;
    let digest = Digest::of(&encoded);
    let (packs, files) = (Vec::new(), Vec::new());
    let (directory, memory) = (PathBuf::new(), Memory::default());
    Ok(Scan { manifest, encoded, digest, packs, files, directory, memory })
}

/// Scans some paths of a root file system: each with all that is below it, and with its parent
/// directories. The paths hold no links; those that do not exist are left out.
pub fn scan_paths(
    root: &Path,
    paths: &[TreePath],
    pack_directory: &Path,
) -> Result<Scan, ScanError> {
    let mut found = Vec::new();
    for path in paths {
        let Ok(metadata) = fs::symlink_metadata(on_disk(root, path)) else { continue };
        if metadata.is_dir() {
            walk(root, path, &mut |_, _| Verdict::Keep, &mut found)?;
        } else {
            found.push(path.clone());
        }
    }
    let everything = |manifest: &Manifest| vec![true; manifest.entries.len()];
    build(root, found, Owner::Keep, &everything, (pack_directory, &Memory::default()))
}

fn on_disk(root: &Path, path: &TreePath) -> PathBuf {
    root.join(Path::new(std::ffi::OsStr::from_bytes(path.as_bytes())))
}

fn walk(
    root: &Path,
    start: &TreePath,
    filter: &mut dyn FnMut(&TreePath, bool) -> Verdict,
    found: &mut Vec<TreePath>,
) -> Result<(), ScanError> {
    found.push(start.clone());
    let mut todo = vec![start.clone()];
    while let Some(directory) = todo.pop() {
        let path = on_disk(root, &directory);
        let fail = |source| ScanError::Read { path: path.clone(), source };
        for entry in fs::read_dir(&path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let is_directory = entry.file_type().map_err(fail)?.is_dir();
            let name = entry.file_name().into_vec();
            let mut bytes = directory.as_bytes().to_vec();
            if !bytes.is_empty() {
                bytes.push(b'/');
            }
            bytes.extend(name);
            let child = TreePath::new(bytes).map_err(|_| ScanError::Path(entry.path()))?;
            let verdict = filter(&child, is_directory);
            if verdict == Verdict::Keep {
                found.push(child.clone());
            }
            if is_directory && verdict != Verdict::SkipTree {
                todo.push(child);
            }
            if found.len() > MAX_ENTRIES {
                return Err(ScanError::TooMany);
            }
        }
    }
    Ok(())
}

fn build(
    root: &Path,
    mut paths: Vec<TreePath>,
    owner: Owner,
    choice: &Choice<'_>,
    (pack_directory, memory): (&Path, &Memory),
) -> Result<Scan, ScanError> {
    add_parents(&mut paths);
    let (mut entries, contents) = list(root, paths, owner)?;
    let mut known = Memory::default();
    let contents = keep_back(&mut entries, contents, choice, (memory, &mut known));
    let (files, packs) = read(&contents, pack_directory, memory)?;
    for (file, (_, path, metadata)) in files.iter().zip(&contents) {
        known.add_file(path, metadata, file.digest);
    }
    for (number, packed) in packs.iter().enumerate() {
        known.add_pack(packed.plan.key(&files), packed.made.clone());
        let number = u32::try_from(number).map_err(|_| ScanError::TooMany)?;
        for (file, part) in packed.plan.parts(number, &packed.made) {
            if let EntryKind::File { parts, .. } = &mut entries[contents[file].0].kind {
                parts.push(part);
            }
        }
    }
    for (file, (position, ..)) in files.iter().zip(&contents) {
        if let EntryKind::File { size_bytes, digest, .. } = &mut entries[*position].kind {
            (*size_bytes, *digest) = (file.size_bytes, file.digest);
        }
    }
    let manifest =
        Manifest { packs: packs.iter().map(|packed| packed.made.pack).collect(), entries };
    let encoded = manifest::encode(&manifest)?;
    let digest = Digest::of(&encoded);
    let directory = pack_directory.to_owned();
    Ok(Scan { manifest, encoded, digest, packs, files, directory, memory: known })
}

/// An entry that has content, by position, with what the disk says of it.
type Content = (usize, PathBuf, Metadata);

/// The entries, and those that have content, which is filled in later.
fn list(
    root: &Path,
    paths: Vec<TreePath>,
    owner: Owner,
) -> Result<(Vec<Entry>, Vec<Content>), ScanError> {
    let mut entries = Vec::with_capacity(paths.len());
    let mut names: HashMap<(u64, u64), TreePath> = HashMap::new();
    let mut contents: Vec<Content> = Vec::new();
    let look = |path: &TreePath| {
        let file = on_disk(root, path);
        let found = fs::symlink_metadata(&file).and_then(|metadata| {
            let holds_some = metadata.is_file() || metadata.is_dir();
            let xattrs = if holds_some { read_xattrs(&file)? } else { Vec::new() };
            Ok((metadata, xattrs))
        });
        match found {
            Ok((metadata, xattrs)) => Ok((file, metadata, xattrs)),
            Err(source) => Err(ScanError::Read { path: file, source }),
        }
    };
    let looked: Vec<_> = paths.par_iter().map(look).collect::<Result<_, _>>()?;
    for (path, (file, metadata, xattrs)) in paths.into_iter().zip(looked) {
        let fail = |source| ScanError::Read { path: file.clone(), source };
        let first = (metadata.nlink() > 1 && metadata.is_file())
            .then(|| names.get(&(metadata.dev(), metadata.ino())).cloned())
            .flatten();
        let kind = match first {
            Some(target) => EntryKind::Hardlink { target },
            None if is_file(&metadata) => {
                if metadata.nlink() > 1 {
                    names.insert((metadata.dev(), metadata.ino()), path.clone());
                }
                // Filled in below.
                let digest = Digest::of(b"");
                EntryKind::File { size_bytes: 0, digest, parts: Vec::new() }
            }
            None => special_kind(&file, &metadata).map_err(fail)?,
        };
        let made = entry(path, &metadata, owner, xattrs, kind);
        if metadata.is_file() && matches!(made.kind, EntryKind::File { .. }) {
            contents.push((entries.len(), file, metadata));
        }
        entries.push(made);
    }
    Ok((entries, contents))
}

/// Takes from the files that are not wanted all but their names, and answers with the others. What
/// is known of them stays known.
fn keep_back(
    entries: &mut Vec<Entry>,
    contents: Vec<Content>,
    choice: &Choice<'_>,
    (memory, known): (&Memory, &mut Memory),
) -> Vec<Content> {
    let manifest = Manifest { packs: Vec::new(), entries: std::mem::take(entries) };
    let wanted = choice(&manifest);
    *entries = manifest.entries;
    for (entry, is_wanted) in entries.iter_mut().zip(&wanted) {
        if !is_wanted && matches!(entry.kind, EntryKind::File { .. } | EntryKind::Hardlink { .. }) {
            let path = std::mem::take(&mut entry.path);
            let (mode, xattrs, kind) = (0, Vec::new(), EntryKind::Unsent);
            *entry = Entry { path, mode, uid: 0, gid: 0, mtime_secs: 0, xattrs, kind };
        }
    }
    let (kept, unread): (Vec<Content>, Vec<Content>) =
        contents.into_iter().partition(|(position, ..)| wanted[*position]);
    for (_, path, metadata) in &unread {
        if let Some(digest) = memory.file(path, metadata) {
            known.add_file(path, metadata, digest);
        }
    }
    kept
}

/// The files' lengths and digests, and their packs. Each file is read once, all processors at once:
/// content stays in memory until its pack is made. What is known from the last time is not read.
fn read(
    contents: &[Content],
    directory: &Path,
    memory: &Memory,
) -> Result<(Vec<PackInput>, Vec<Packed>), ScanError> {
    let mut files = Vec::with_capacity(contents.len());
    let (mut packs, mut planner) = (Vec::new(), Planner::default());
    let mut held: HashMap<usize, Vec<u8>> = HashMap::new();
    let mut rest = contents;
    while !rest.is_empty() {
        let (window, after) = rest.split_at(window(rest));
        rest = after;
        let found: Vec<(PackInput, Option<Vec<u8>>)> = window
            .par_iter()
            .map(|content| read_file(content, memory))
            .collect::<Result<_, _>>()?;
        let mut plans = Vec::new();
        for (file, content) in found {
            let number = files.len();
            held.extend(content.map(|content| (number, content)));
            plans.extend(planner.push(number, &file));
            files.push(file);
        }
        if rest.is_empty() {
            plans.extend(planner.finish());
        }
        let first = packs.len();
        let make = |(number, plan): (usize, PackPlan)| {
            make_pack(&files, &held, plan, (directory, first + number), memory)
        };
        let made: Vec<Packed> =
            plans.into_par_iter().enumerate().map(make).collect::<Result<_, _>>()?;
        if let Some(last) = made.last().and_then(|packed| packed.plan.last_file()) {
            held.retain(|number, _| *number > last);
        }
        packs.extend(made);
    }
    Ok((files, packs))
}

/// How many of the files are read at once: what they hold stays in memory meanwhile.
fn window(contents: &[Content]) -> usize {
    let mut bytes = 0;
    let fits = |(_, _, metadata): &&Content| {
        bytes += metadata.len().min(MAX_HELD_BYTES);
        bytes <= WINDOW_BYTES
    };
    contents.iter().take_while(fits).count().max(1)
}

/// Length and digest of a file, and its content where that was read and is small.
fn read_file(
    (_, path, metadata): &Content,
    memory: &Memory,
) -> Result<(PackInput, Option<Vec<u8>>), ScanError> {
    let input = |size_bytes, digest| PackInput { path: path.clone(), size_bytes, digest };
    if let Some(digest) = memory.file(path, metadata) {
        return Ok((input(metadata.len(), digest), None));
    }
    let fail = |source| ScanError::Read { path: path.clone(), source };
    let mut file = File::open(path).map_err(fail)?;
    if metadata.len() > MAX_HELD_BYTES {
        let mut hasher = Hasher::new();
        let size_bytes = io::copy(&mut file, &mut hasher).map_err(fail)?;
        return Ok((input(size_bytes, hasher.finish()), None));
    }
    let mut content = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    // One that grows meanwhile is cut, as if it had been read before.
    file.take(MAX_HELD_BYTES).read_to_end(&mut content).map_err(fail)?;
    Ok((input(content.len() as u64, Digest::of(&content)), Some(content)))
}

fn make_pack(
    files: &[PackInput],
    held: &HashMap<usize, Vec<u8>>,
    plan: PackPlan,
    (directory, number): (&Path, usize),
    memory: &Memory,
) -> Result<Packed, ScanError> {
    if let Some(made) = memory.pack(&plan.key(files)) {
        return Ok(Packed { made: made.clone(), plan, path: None });
    }
    let path = directory.join(format!("pack-{number}"));
    let made = plan
        .make(files, held, &path)
        .map_err(|source| ScanError::Read { path: directory.to_owned(), source })?;
    Ok(Packed { made, plan, path: Some(path) })
}

/// Sorts, and lists every parent directory.
fn add_parents(paths: &mut Vec<TreePath>) {
    let mut parents = Vec::new();
    for path in paths.iter() {
        let mut parent = path.parent();
        while let Some(path) = parent {
            parent = path.parent();
            parents.push(path);
        }
    }
    paths.append(&mut parents);
    paths.push(TreePath::root());
    paths.sort_unstable();
    paths.dedup();
}

/// Whether it is a file, or a socket, which BuildKit copies as an empty one.
fn is_file(metadata: &Metadata) -> bool {
    metadata.is_file() || metadata.file_type().is_socket()
}

fn special_kind(path: &Path, metadata: &Metadata) -> io::Result<EntryKind> {
    let kind = metadata.file_type();
    let device = metadata.rdev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    Ok(if kind.is_dir() {
        EntryKind::Directory
    } else if kind.is_symlink() {
        EntryKind::Symlink { target: fs::read_link(path)?.into_os_string().into_vec() }
    } else if kind.is_fifo() {
        EntryKind::Fifo
    } else if kind.is_char_device() {
        EntryKind::CharDevice { major, minor }
    } else {
        EntryKind::BlockDevice { major, minor }
    })
}

fn entry(
    path: TreePath,
    metadata: &Metadata,
    owner: Owner,
    xattrs: Vec<(String, Vec<u8>)>,
    kind: EntryKind,
) -> Entry {
    let (uid, gid) = match owner {
        Owner::Keep => (metadata.uid(), metadata.gid()),
        Owner::Root => (0, 0),
    };
    let xattrs = match kind {
        EntryKind::File { .. } | EntryKind::Directory => xattrs,
        _ => Vec::new(),
    };
    let mode = metadata.mode() & 0o7777;
    Entry { path, mode, uid, gid, mtime_secs: metadata.mtime(), xattrs, kind }
}

/// The attributes that a layer can hold.
fn read_xattrs(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    match xattr::get(path, "security.capability") {
        Ok(Some(value)) => Ok(vec![("security.capability".to_owned(), value)]),
        Ok(None) => Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
