//! From a directory to a manifest and packs.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use common::Digest;
use common::tree::{Entry, EntryKind, Manifest, TreePath};

use crate::manifest::{self, ManifestError};
use crate::pack::{PackFile, PackWriter, Packed};

/// Most entries of one tree.
const MAX_ENTRIES: usize = 2_000_000;

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
    /// The packs it refers to.
    pub packs: Vec<PackFile>,
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

/// Scans a whole directory. `filter` is asked about every entry with its path and whether it is a
/// directory. Packs are written into the existing directory `pack_directory`.
pub fn scan(
    root: &Path,
    owner: Owner,
    filter: &mut dyn FnMut(&TreePath, bool) -> Verdict,
    pack_directory: &Path,
) -> Result<Scan, ScanError> {
    let mut paths = Vec::new();
    walk(root, &TreePath::root(), filter, &mut paths)?;
    build(root, paths, owner, pack_directory)
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
    build(root, found, Owner::Keep, pack_directory)
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
    pack_directory: &Path,
) -> Result<Scan, ScanError> {
    add_parents(&mut paths);
    let fail = |path: PathBuf| move |source| ScanError::Read { path, source };
    let mut writer = PackWriter::new(pack_directory).map_err(fail(pack_directory.to_owned()))?;
    let mut entries = Vec::with_capacity(paths.len());
    let mut packed: HashMap<usize, Packed> = HashMap::new();
    let mut names: HashMap<(u64, u64), TreePath> = HashMap::new();
    for path in paths {
        let file = on_disk(root, &path);
        let metadata = fs::symlink_metadata(&file).map_err(fail(file.clone()))?;
        let first = (metadata.nlink() > 1 && metadata.is_file())
            .then(|| names.get(&(metadata.dev(), metadata.ino())).cloned())
            .flatten();
        let kind = match first {
            Some(target) => EntryKind::Hardlink { target },
            None if is_file(&metadata) => {
                if metadata.nlink() > 1 {
                    names.insert((metadata.dev(), metadata.ino()), path.clone());
                }
                let content = if metadata.is_file() {
                    File::open(&file).and_then(|reader| writer.add(reader))
                } else {
                    writer.add(io::empty())
                };
                let content = content.map_err(fail(file.clone()))?;
                let (size_bytes, digest) = (content.size_bytes, content.digest);
                packed.insert(entries.len(), content);
                EntryKind::File { size_bytes, digest, parts: Vec::new() }
            }
            None => special_kind(&file, &metadata).map_err(fail(file.clone()))?,
        };
        entries.push(entry(path, &file, &metadata, owner, kind).map_err(fail(file.clone()))?);
    }
    let packs = writer.finish().map_err(fail(pack_directory.to_owned()))?;
    for (position, file) in &packed {
        if let EntryKind::File { parts, .. } = &mut entries[*position].kind {
            *parts = packs.parts(file).to_vec();
        }
    }
    let manifest = Manifest { packs: packs.packs.iter().map(|file| file.pack).collect(), entries };
    let encoded = manifest::encode(&manifest)?;
    let digest = Digest::of(&encoded);
    Ok(Scan { manifest, encoded, digest, packs: packs.packs })
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
    file: &Path,
    metadata: &Metadata,
    owner: Owner,
    kind: EntryKind,
) -> io::Result<Entry> {
    let (uid, gid) = match owner {
        Owner::Keep => (metadata.uid(), metadata.gid()),
        Owner::Root => (0, 0),
    };
    let xattrs = match kind {
        EntryKind::File { .. } | EntryKind::Directory => read_xattrs(file)?,
        _ => Vec::new(),
    };
    let mode = metadata.mode() & 0o7777;
    Ok(Entry { path, mode, uid, gid, mtime_secs: metadata.mtime(), xattrs, kind })
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
