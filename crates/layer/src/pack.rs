//! From an overlay's upper directory to a layer blob.
//!
//! Deterministic: entries are sorted by path, owners are numbers, times whole seconds, and nothing
//! of the host is in it. Changing what is written changes digests that caches rest on.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use common::Digest;
use common::digest::Hasher;

use crate::compress::{BlobWriter, Compression};
use crate::namespace::opaque_xattr;
use crate::{CAPABILITY_XATTR, OPAQUE_NAME, WHITEOUT_PREFIX};

/// A layer blob on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedLayer {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Digest of the blob.
    pub blob: Digest,
    /// Length of the blob in bytes.
    pub size_bytes: u64,
    /// Its media type.
    pub media_type: &'static str,
    /// Length of the archive in bytes.
    pub uncompressed_bytes: u64,
}

/// A layer could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The disk.
    #[error("cannot make a layer of {path}: {source}")]
    Io {
        /// The file at fault.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file whose name means something else in a layer: whoever reads the layer would remove
    /// another file instead.
    #[error(
        "{path:?} cannot be in a layer: names that begin with \".wh.\" stand for removed files"
    )]
    ReservedName {
        /// The path in the layer.
        path: PathBuf,
    },
}

impl PackError {
    /// Whether there is no space for the layer.
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}

/// Writes the changes in `upper` as a blob to the new file `out`.
///
/// `lowers` are the layers below, lowest first: directories that overlayfs merely copied up, with
/// nothing in them and the metadata they had below, are left out.
pub fn pack_upper(
    upper: &Path,
    lowers: &[PathBuf],
    out: &Path,
    compression: Compression,
) -> Result<PackedLayer, PackError> {
    pack_scanned(upper, lowers, out, compression, || {})
}

/// As [`pack_upper`]; `scanned` is called as soon as it is clear that there is nothing in the way but
/// the disk.
pub fn pack_scanned(
    upper: &Path,
    lowers: &[PathBuf],
    out: &Path,
    compression: Compression,
    scanned: impl FnOnce(),
) -> Result<PackedLayer, PackError> {
    let fail = |path: &Path, source| PackError::Io { path: path.to_owned(), source };
    let mut found = Vec::new();
    collect(upper, Path::new(""), lowers, &mut found).map_err(|source| fail(upper, source))?;
    if let Some(found) = found.iter().find(|found| is_reserved(&found.path)) {
        return Err(PackError::ReservedName { path: Path::new("/").join(&found.path) });
    }
    scanned();
    let blob = BlobWriter::create(out, compression).map_err(|source| fail(out, source))?;
    let mut archive = Archive { writer: Hashing::new(blob), names: HashMap::new() };
    for found in &found {
        let at = |source| fail(&upper.join(&found.path), source);
        archive.append(upper, lowers, found).map_err(at)?;
    }
    let (blob, diff_id, uncompressed_bytes) =
        archive.finish().map_err(|source| fail(out, source))?;
    let (blob, size_bytes) = blob.finish().map_err(|source| fail(out, source))?;
    let media_type = compression.media_type();
    Ok(PackedLayer { diff_id, blob, size_bytes, media_type, uncompressed_bytes })
}

/// Something that belongs into a layer.
struct Found {
    path: PathBuf,
    metadata: Metadata,
}

/// All below `directory` that belongs into the layer, sorted by name at each level, each
/// directory before what it holds. Returns whether there were any.
fn collect(
    upper: &Path,
    directory: &Path,
    lowers: &[PathBuf],
    found: &mut Vec<Found>,
) -> io::Result<bool> {
    let mut names: Vec<_> = fs::read_dir(upper.join(directory))?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<_>>()?;
    names.sort_unstable();
    let mut any = false;
    for name in names {
        let path = directory.join(name);
        let metadata = fs::symlink_metadata(upper.join(&path))?;
        if metadata.file_type().is_socket() {
            continue;
        }
        let position = found.len();
        let is_directory = metadata.is_dir();
        found.push(Found { path: path.clone(), metadata });
        if is_directory
            && !collect(upper, &path, lowers, found)?
            && !hides(upper, &path, lowers)?
            && is_unchanged(&found[position].metadata, &path, lowers)
        {
            found.truncate(position);
            continue;
        }
        any = true;
    }
    Ok(any)
}

/// Whether a directory hides what the layers below have in its place. The kernel marks directories
/// that hide nothing too.
fn hides(upper: &Path, path: &Path, lowers: &[PathBuf]) -> io::Result<bool> {
    let is_below = || lowers.iter().any(|lower| fs::symlink_metadata(lower.join(path)).is_ok());
    Ok(is_opaque(&upper.join(path))? && is_below())
}

fn is_reserved(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_bytes().starts_with(WHITEOUT_PREFIX.as_bytes()))
}

fn is_opaque(path: &Path) -> io::Result<bool> {
    Ok(xattr::get(path, opaque_xattr())?.as_deref() == Some(b"y"))
}

/// Whether the highest layer that has `path` has it as a directory with the same metadata.
fn is_unchanged(metadata: &Metadata, path: &Path, lowers: &[PathBuf]) -> bool {
    let below = lowers.iter().rev().find_map(|lower| fs::symlink_metadata(lower.join(path)).ok());
    below.is_some_and(|below| {
        let facts = |found: &Metadata| {
            (found.mode(), found.uid(), found.gid(), found.mtime(), found.mtime_nsec())
        };
        facts(&below) == facts(metadata)
    })
}

struct Archive<W: Write> {
    writer: Hashing<W>,
    /// Files with several names: where the first one is.
    names: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Archive<W> {
    fn append(&mut self, upper: &Path, lowers: &[PathBuf], found: &Found) -> io::Result<()> {
        let Found { path, metadata } = found;
        let on_disk = upper.join(path);
        let kind = metadata.file_type();
        let name = path.as_os_str().as_bytes();
        if kind.is_char_device() && metadata.rdev() == 0 {
            return self.whiteout(path);
        }
        let mut header = tar::Header::new_ustar();
        header.set_uid(u64::from(metadata.uid()));
        header.set_gid(u64::from(metadata.gid()));
        header.set_mode(metadata.mode() & 0o7777);
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
        header.set_size(0);
        let capability = if kind.is_file() || kind.is_dir() {
            xattr::get(&on_disk, CAPABILITY_XATTR)?
        } else {
            None
        };
        if kind.is_dir() {
            header.set_entry_type(tar::EntryType::Directory);
            self.entry(
                &mut header,
                &[name, b"/"].concat(),
                b"",
                capability.as_deref(),
                io::empty(),
            )?;
            if hides(upper, path, lowers)? {
                self.empty_file(&path.join(OPAQUE_NAME))?;
            }
            return Ok(());
        }
        if metadata.nlink() > 1 && !kind.is_symlink() {
            if let Some(first) = self.names.get(&(metadata.dev(), metadata.ino())).cloned() {
                header.set_entry_type(tar::EntryType::Link);
                return self.entry(&mut header, name, &first, None, io::empty());
            }
            self.names.insert((metadata.dev(), metadata.ino()), name.to_vec());
        }
        if kind.is_symlink() {
            let target = fs::read_link(&on_disk)?;
            header.set_entry_type(tar::EntryType::Symlink);
            let target = target.as_os_str().as_bytes().to_vec();
            return self.entry(&mut header, name, &target, None, io::empty());
        }
        if kind.is_file() {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(metadata.len());
            let file = File::open(&on_disk)?;
            return self.entry(&mut header, name, b"", capability.as_deref(), file);
        }
        header.set_entry_type(if kind.is_fifo() {
            tar::EntryType::Fifo
        } else if kind.is_block_device() {
            tar::EntryType::Block
        } else {
            tar::EntryType::Char
        });
        header.set_device_major(rustix::fs::major(metadata.rdev()))?;
        header.set_device_minor(rustix::fs::minor(metadata.rdev()))?;
        self.entry(&mut header, name, b"", None, io::empty())
    }

    fn whiteout(&mut self, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_else(|| OsStr::new(""));
        let mut hidden = WHITEOUT_PREFIX.as_bytes().to_vec();
        hidden.extend_from_slice(name.as_bytes());
        self.empty_file(&path.with_file_name(OsStr::from_bytes(&hidden)))
    }

    fn empty_file(&mut self, path: &Path) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mtime(0);
        self.entry(&mut header, path.as_os_str().as_bytes(), b"", None, io::empty())
    }

    /// One entry, with a PAX header before it where the plain one cannot say it all.
    fn entry(
        &mut self,
        header: &mut tar::Header,
        name: &[u8],
        link: &[u8],
        capability: Option<&[u8]>,
        mut content: impl io::Read,
    ) -> io::Result<()> {
        let size = header.size()?;
        let mut records = Vec::new();
        let fits = |bytes: &[u8]| bytes.len() <= 100 && bytes.is_ascii();
        if fits(name) {
            header.as_old_mut().name[..name.len()].copy_from_slice(name);
        } else {
            pax_record(&mut records, "path", name);
        }
        if fits(link) {
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        } else {
            pax_record(&mut records, "linkpath", link);
        }
        if size > 0o777_7777_7777 {
            pax_record(&mut records, "size", size.to_string().as_bytes());
        }
        for (key, value) in [("uid", header.uid()?), ("gid", header.gid()?)] {
            if value > 0o777_7777 {
                pax_record(&mut records, key, value.to_string().as_bytes());
            }
        }
        if let Some(value) = capability {
            pax_record(&mut records, &format!("SCHILY.xattr.{CAPABILITY_XATTR}"), value);
        }
        if !records.is_empty() {
            let mut pax = tar::Header::new_ustar();
            pax.set_entry_type(tar::EntryType::XHeader);
            pax.set_size(records.len() as u64);
            pax.set_mode(0o644);
            pax.set_mtime(0);
            pax.as_old_mut().name[..9].copy_from_slice(b"PaxHeader");
            self.block(&mut pax, records.as_slice(), records.len() as u64)?;
        }
        self.block(header, &mut content, size)
    }

    fn block(
        &mut self,
        header: &mut tar::Header,
        content: impl io::Read,
        size: u64,
    ) -> io::Result<()> {
        header.set_cksum();
        self.writer.write_all(header.as_bytes())?;
        // A file that grows meanwhile is cut, one that shrinks is an error: nothing else may write
        // to an upper directory that is being packed.
        let copied = io::copy(&mut content.take(size), &mut self.writer)?;
        if copied != size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
        }
        let padding = usize::try_from((512 - size % 512) % 512).unwrap_or(0);
        self.writer.write_all(&[0; 512][..padding])
    }

    fn finish(mut self) -> io::Result<(W, Digest, u64)> {
        self.writer.write_all(&[0; 1024])?;
        Ok(self.writer.finish())
    }
}

/// `length key=value\n`, where the length counts itself (POSIX pax, "pax Extended Header").
fn pax_record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Counts and hashes what is written through it.
pub(crate) struct Hashing<W> {
    inner: W,
    hasher: Hasher,
    count: u64,
}

impl<W: Write> Hashing<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::new(), count: 0 }
    }

    pub(crate) fn finish(self) -> (W, Digest, u64) {
        (self.inner, self.hasher.finish(), self.count)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
