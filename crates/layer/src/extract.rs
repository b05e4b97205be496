//! From a layer blob to a directory in overlayfs form.
//!
//! The blob comes from a registry, so it is hostile: entries are made relative to directories that
//! are opened component by component without following links, so that nothing outside of the
//! destination can be reached; counts and sizes are bounded.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use common::Digest;
use common::digest::Hasher;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, fsetxattr, futimens, linkat, mkdirat, mknodat, openat, statat, symlinkat, unlinkat,
    utimensat,
};

use crate::bounded::Bounded;
use crate::header::HeaderNumbers;
use crate::namespace::{in_user_namespace, opaque_xattr};
use crate::{CAPABILITY_XATTR, OPAQUE_NAME, WHITEOUT_PREFIX, sparse};

/// Most entries of a layer.
const MAX_ENTRIES: u64 = 5_000_000;
/// Most bytes of an unpacked layer.
const MAX_BYTES: u64 = 256 << 30;
/// Most components of all paths together: each is a call or two. Five million files lie eight
/// directories deep on average in the deepest trees that are seen.
const MAX_COMPONENTS: u64 = 60_000_000;
/// Most bytes of the paths of all directories together, which are kept in memory to the end.
const MAX_DIRECTORY_BYTES: u64 = 512 << 20;
/// The disk is not filled further than this, in bytes.
const MIN_FREE_BYTES: u64 = 256 << 20;
/// So many bytes may be written before the disk is looked at again.
const FREE_CHECK_BYTES: u64 = 64 << 20;

/// A layer that was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extracted {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of its files.
    pub content_bytes: u64,
}

/// A layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The archive is damaged.
    #[error("the layer is not valid at {path:?}: {problem}")]
    Invalid {
        /// The entry; empty for the archive as a whole.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The archive asks for what no layer may have.
    #[error("the layer is refused at {path:?}: {problem}")]
    Refused {
        /// The entry.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The disk, or the stream that the archive comes from.
    #[error("cannot unpack {path:?}: {source}")]
    Io {
        /// The entry.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Unpacks `reader` (gzip, zstd or plain, told by its first bytes) into the existing empty
/// directory `destination`.
pub fn extract(reader: impl Read, destination: &Path) -> Result<Extracted, ExtractError> {
    let fail = |source| ExtractError::Io { path: String::new(), source };
    let root = OwnedFd::from(File::open(destination).map_err(fail)?);
    let plain = decompress(BufReader::with_capacity(256 << 10, reader)).map_err(fail)?;
    let mut hashing = HashingReader { inner: plain, hasher: Hasher::new() };
    let mut extraction = Extraction {
        root,
        last: None,
        buffer: Vec::new(),
        directories: BTreeMap::new(),
        content_bytes: 0,
        entries: 0,
        components: 0,
        directory_bytes: 0,
        unchecked_bytes: 0,
    };
    let (bounded, gate) = Bounded::new(&mut hashing);
    let mut archive = tar::Archive::new(bounded);
    let mut entries = archive.entries().map_err(fail)?;
    loop {
        gate.expect_headers();
        let next = entries.next();
        gate.expect_content();
        let Some(entry) = next else { break };
        let mut entry = entry.map_err(|error| ExtractError::Invalid {
            path: String::new(),
            problem: error.to_string(),
        })?;
        extraction.entry(&mut entry)?;
        io::copy(&mut entry, &mut io::sink()).map_err(fail)?;
    }
    drop(archive);
    // The digest covers what stands behind the last entry too.
    io::copy(&mut hashing, &mut io::sink()).map_err(fail)?;
    extraction.finish_directories()?;
    let diff_id = hashing.hasher.finish();
    Ok(Extracted { diff_id, content_bytes: extraction.content_bytes })
}

pub(crate) fn decompress<'a>(
    mut reader: BufReader<impl Read + 'a>,
) -> io::Result<Box<dyn Read + 'a>> {
    use std::io::BufRead as _;
    let magic = reader.fill_buf()?;
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(reader)?),
        _ => Box::new(reader),
    })
}

struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

struct Extraction {
    root: OwnedFd,
    /// The directory that was opened last: entries of one directory follow each other.
    last: Option<(Vec<Vec<u8>>, Rc<OwnedFd>)>,
    buffer: Vec<u8>,
    /// Directories whose metadata is set at the end, when nothing changes in them any more.
    directories: BTreeMap<Vec<Vec<u8>>, Facts>,
    content_bytes: u64,
    entries: u64,
    components: u64,
    directory_bytes: u64,
    /// Written since the disk was looked at.
    unchecked_bytes: u64,
}

#[derive(Debug, Clone)]
struct Facts {
    uid: u32,
    gid: u32,
    mode: u32,
    mtime_secs: i64,
    capability: Option<Vec<u8>>,
}

impl Facts {
    fn apply(&self, fd: &OwnedFd) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        // What was just made is ours: no directory passes a group on before all is there.
        if (uid, gid) != (rustix::process::geteuid(), rustix::process::getegid()) {
            fchown(fd, Some(uid), Some(gid)).map_err(|error| self.owner_error(error))?;
        }
        fchmod(fd, Mode::from_raw_mode(self.mode))?;
        if let Some(value) = &self.capability {
            fsetxattr(fd, CAPABILITY_XATTR, value, XattrFlags::empty())?;
        }
        futimens(fd, &self.times())?;
        Ok(())
    }

    fn apply_to_name(&self, parent: &OwnedFd, name: &[u8], has_mode: bool) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let name = std::ffi::OsStr::from_bytes(name);
        chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.owner_error(error))?;
        if has_mode {
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(self.mode), AtFlags::empty())?;
        }
        utimensat(parent, name, &self.times(), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    /// The kernel calls an owner invalid that the user namespace does not know.
    fn owner_error(&self, error: rustix::io::Errno) -> io::Error {
        if error == rustix::io::Errno::INVAL && in_user_namespace() {
            let (uid, gid) = (self.uid, self.gid);
            return io::Error::other(format!(
                "the owner {uid}:{gid} has no number in the worker's user namespace: give its user \
                 more in /etc/subuid and /etc/subgid"
            ));
        }
        error.into()
    }

    fn times(&self) -> Timestamps {
        let time = Timespec { tv_sec: self.mtime_secs, tv_nsec: 0 };
        Timestamps { last_access: time, last_modification: time }
    }
}

fn os(name: &[u8]) -> &std::ffi::OsStr {
    std::ffi::OsStr::from_bytes(name)
}

impl Extraction {
    fn entry(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<(), ExtractError> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            // A comment about the archive: nothing of the file system.
            return Ok(());
        }
        let raw = entry.path_bytes().into_owned();
        let path = String::from_utf8_lossy(&raw).into_owned();
        let io_fail = |source| ExtractError::Io { path: path.clone(), source };
        let refused = |problem: &str| ExtractError::Refused {
            path: path.chars().take(1000).collect(),
            problem: problem.to_owned(),
        };
        self.entries += 1;
        self.content_bytes = self.content_bytes.saturating_add(entry.size());
        if self.entries > MAX_ENTRIES || self.content_bytes > MAX_BYTES {
            return Err(refused("the layer is too big"));
        }
        let parts = components(&raw)
            .ok_or_else(|| refused("the path climbs out of the layer, or is too long"))?;
        self.components += parts.len() as u64;
        if kind.is_dir() {
            self.directory_bytes += raw.len() as u64;
        }
        if self.components > MAX_COMPONENTS || self.directory_bytes > MAX_DIRECTORY_BYTES {
            return Err(refused("the layer's paths are too long"));
        }
        let facts = facts(entry).map_err(io_fail)?;
        let Some((name, parents)) = parts.split_last() else {
            // The root itself.
            self.directories.insert(Vec::new(), facts);
            return Ok(());
        };
        let parent = self.parent(parents).map_err(io_fail)?;
        if name == OPAQUE_NAME.as_bytes() {
            fsetxattr(&parent, opaque_xattr(), b"y", XattrFlags::empty())
                .map_err(|error| io_fail(error.into()))?;
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX.as_bytes()) {
            if hidden.is_empty() || matches!(hidden, b"." | b"..") {
                return Err(refused("a whiteout names nothing"));
            }
            self.clear(&parent, hidden).map_err(io_fail)?;
            mknodat(&parent, os(hidden), FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(|error| io_fail(error.into()))?;
            return Ok(());
        }
        if kind.is_dir() {
            make_directory(&parent, name).map_err(io_fail)?;
            self.directories.insert(parts, facts);
            return Ok(());
        }
        if !kind.is_file() {
            self.clear(&parent, name).map_err(io_fail)?;
        }
        self.make(&parent, name, kind, &facts, entry).map_err(|error| match error {
            MakeError::Io(source) => io_fail(source),
            MakeError::Refused(problem) => refused(&problem),
        })
    }

    fn make(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        kind: tar::EntryType,
        facts: &Facts,
        entry: &mut tar::Entry<'_, impl Read>,
    ) -> Result<(), MakeError> {
        match kind {
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                let file = match create(parent, name) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        self.clear(parent, name)?;
                        create(parent, name)?
                    }
                    created => created?,
                };
                self.look_at_disk(entry.size())?;
                let root = &self.root;
                sparse::write_stream(entry, &file, &mut self.buffer, |so_far| {
                    if so_far.is_multiple_of(FREE_CHECK_BYTES) { check_free(root) } else { Ok(()) }
                })?;
                facts.apply(&file.into())?;
            }
            tar::EntryType::Symlink => {
                symlinkat(os(&link_name(entry)), parent, os(name))?;
                facts.apply_to_name(parent, name, false)?;
            }
            tar::EntryType::Link => {
                let target = link_name(entry);
                let climbs =
                    || MakeError::Refused("a hard link climbs out of the layer".to_owned());
                let parts = components(&target).ok_or_else(climbs)?;
                let (target_name, parents) = parts.split_last().ok_or_else(climbs)?;
                let from = self.open_directory(parents)?;
                linkat(&from, os(target_name), parent, os(name), AtFlags::empty())?;
            }
            tar::EntryType::Fifo => {
                mknodat(parent, os(name), FileType::Fifo, Mode::from_raw_mode(facts.mode), 0)?;
                facts.apply_to_name(parent, name, true)?;
            }
            tar::EntryType::Char | tar::EntryType::Block => {
                let header = entry.header();
                let major = header.device_major()?.unwrap_or(0);
                let minor = header.device_minor()?.unwrap_or(0);
                let kind = match kind {
                    tar::EntryType::Char => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                let device = rustix::fs::makedev(major, minor);
                match mknodat(parent, os(name), kind, Mode::from_raw_mode(facts.mode), device) {
                    // Nobody may make one in a user namespace: left out, as BuildKit does there.
                    Err(rustix::io::Errno::PERM) if in_user_namespace() => return Ok(()),
                    result => result?,
                }
                facts.apply_to_name(parent, name, true)?;
            }
            other => {
                let kind = other.as_byte() as char;
                return Err(MakeError::Refused(format!("unknown type of entry {kind:?}")));
            }
        }
        Ok(())
    }

    /// The directory of an entry; the last one is kept open.
    fn parent(&mut self, parts: &[Vec<u8>]) -> io::Result<Rc<OwnedFd>> {
        if let Some((last, fd)) = &self.last
            && last == parts
        {
            return Ok(Rc::clone(fd));
        }
        let fd = Rc::new(self.open_directory(parts)?);
        self.last = Some((parts.to_vec(), Rc::clone(&fd)));
        Ok(fd)
    }

    /// Removes what an earlier entry of the same layer put there.
    fn clear(&mut self, parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
        match statat(parent, os(name), AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(stat) => {
                let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                if is_directory {
                    self.last = None;
                }
                let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                Ok(unlinkat(parent, os(name), flags)?)
            }
        }
    }

    /// Stops before the disk is full.
    fn look_at_disk(&mut self, more: u64) -> io::Result<()> {
        self.unchecked_bytes = self.unchecked_bytes.saturating_add(more);
        if self.unchecked_bytes < FREE_CHECK_BYTES {
            return Ok(());
        }
        self.unchecked_bytes = 0;
        check_free(&self.root)
    }

    /// Opens a directory of the layer, making what is missing, never through a link.
    fn open_directory(&self, parts: &[Vec<u8>]) -> io::Result<OwnedFd> {
        let mut fd = self.root.try_clone()?;
        for part in parts {
            fd = make_directory(&fd, part)?;
        }
        Ok(fd)
    }

    fn finish_directories(&self) -> Result<(), ExtractError> {
        for (parts, facts) in self.directories.iter().rev() {
            let path = || String::from_utf8_lossy(&parts.join(&b'/')).into_owned();
            self.open_directory(parts)
                .and_then(|fd| facts.apply(&fd))
                .map_err(|source| ExtractError::Io { path: path(), source })?;
        }
        Ok(())
    }
}

fn check_free(root: &OwnedFd) -> io::Result<()> {
    let found = rustix::fs::fstatvfs(root)?;
    if found.f_bavail.saturating_mul(found.f_frsize) < MIN_FREE_BYTES {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

enum MakeError {
    Io(io::Error),
    Refused(String),
}

impl<E: Into<io::Error>> From<E> for MakeError {
    fn from(error: E) -> Self {
        Self::Io(error.into())
    }
}

/// Opens a directory, making it where it is missing. What is there and is no directory, a link for
/// example, is an error of the layer.
fn make_directory(parent: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat(parent, os(name), flags, Mode::empty());
    match open() {
        Err(rustix::io::Errno::NOENT) => {
            mkdirat(parent, os(name), Mode::from_raw_mode(0o755))?;
            Ok(open()?)
        }
        opened => Ok(opened?),
    }
}

fn create(parent: &OwnedFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    Ok(File::from(openat(parent, os(name), flags, Mode::from_raw_mode(0o600))?))
}

fn components(path: &[u8]) -> Option<Vec<Vec<u8>>> {
    let parts: Vec<Vec<u8>> = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
        .collect();
    let climbs = parts.iter().any(|part| part == b".." || part.contains(&0) || part.len() > 255);
    (!climbs && parts.len() <= 1000).then_some(parts)
}

fn link_name(entry: &tar::Entry<'_, impl Read>) -> Vec<u8> {
    entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default()
}

fn facts(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Facts> {
    let mut capability = None;
    if let Some(records) = entry.pax_extensions()? {
        for record in records {
            let record = record?;
            if record.key_bytes() == format!("SCHILY.xattr.{CAPABILITY_XATTR}").as_bytes() {
                capability = Some(record.value_bytes().to_vec());
            }
        }
    }
    let HeaderNumbers { uid, gid, mode, mtime_secs } = HeaderNumbers::of(entry.header())?;
    Ok(Facts { uid, gid, mode, mtime_secs, capability })
}
