//! ADD of a local archive: recognised by content, unpacked inside the root.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;

use layer::{Bounded, HeaderNumbers, sparse};
use rustix::fs::{FileType, Timespec};

use super::destination::ensure;
use super::engine::{Copy, make_room};
use super::error::CopyError;
use super::inside::{Root, components, split};
use super::node::{self, Metadata};

/// Entries and bytes that one archive may hold: a small file can unpack to anything.
const MAX_ENTRIES: u64 = 2_000_000;
const MAX_BYTES: u64 = 64 << 30;

/// Bytes of all paths of one archive together: those of directories are kept to the end.
const MAX_PATH_BYTES: u64 = 512 << 20;

/// Memory that an xz archive may ask for, in KiB: the highest preset of xz takes 65 MiB.
const MAX_XZ_KIB: u32 = 256 << 10;

/// A tar archive, decompressed on the way.
pub(super) type Archive = Box<dyn Read>;

/// Opens a file as an archive if its content is one: a tar, plain or in gzip, bzip2, xz or
/// zstd. `open` opens
/// it from the start, each time it is called.
pub(super) fn recognise(
    open: impl Fn() -> io::Result<File>,
    path: &str,
) -> Result<Option<Archive>, CopyError> {
    let fail = |error: io::Error| CopyError::io(path, error);
    let mut magic = [0; 6];
    let count = read_up_to(&mut open().map_err(fail)?, &mut magic).map_err(fail)?;
    let decode = || -> io::Result<Archive> {
        let file = BufReader::new(open()?);
        Ok(match &magic[..count] {
            [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(file)?),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => {
                Box::new(bzip2::bufread::MultiBzDecoder::new(file))
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0] => {
                Box::new(lzma_rust2::XzReader::new_mem_limit(file, true, MAX_XZ_KIB))
            }
            _ => Box::new(file),
        })
    };
    let mut block = [0; 512];
    // A file that only begins like a compressed one is a file.
    let is_tar = matches!(read_up_to(&mut decode().map_err(fail)?, &mut block), Ok(512))
        && is_tar_header(&block);
    if is_tar { decode().map(Some).map_err(fail) } else { Ok(None) }
}

fn read_up_to(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match reader.read(&mut buffer[count..])? {
            0 => break,
            read => count += read,
        }
    }
    Ok(count)
}

/// Whether a block is a tar header: its checksum is right (POSIX pax, "ustar Interchange Format").
fn is_tar_header(block: &[u8; 512]) -> bool {
    let field = &block[148..156];
    let digits: Vec<u8> =
        field.iter().copied().filter(|byte| (b'0'..=b'7').contains(byte)).collect();
    let Some(stored) =
        std::str::from_utf8(&digits).ok().and_then(|digits| u32::from_str_radix(digits, 8).ok())
    else {
        return false;
    };
    let blanks = 8 * u32::from(b' ');
    let sum: u32 = block[..148].iter().chain(&block[156..]).map(|byte| u32::from(*byte)).sum();
    stored == sum + blanks && sum > 0
}

/// Unpacks into the destination. Links in the way are followed inside the root only.
pub(super) fn unpack(
    copy: &mut Copy<'_>,
    archive: Archive,
    destination: &OwnedFd,
    path: &str,
) -> Result<(), CopyError> {
    let bad = |problem: String| CopyError::Archive { path: path.to_owned(), problem };
    let root = Root::from_directory(destination).map_err(|error| CopyError::io(path, error))?;
    let (archive, gate) = Bounded::new(archive);
    let mut archive = tar::Archive::new(archive);
    let mut directories: Vec<(Vec<u8>, Metadata)> = Vec::new();
    let (mut count, mut bytes, mut path_bytes) = (0, 0_u64, 0_u64);
    let mut entries = archive.entries().map_err(|error| bad(error.to_string()))?;
    loop {
        gate.expect_headers();
        let next = entries.next();
        gate.expect_content();
        let Some(entry) = next else { break };
        let mut entry = entry.map_err(|error| bad(error.to_string()))?;
        count += 1;
        bytes = bytes.saturating_add(entry.size());
        path_bytes += entry.path_bytes().len() as u64;
        if count > MAX_ENTRIES || bytes > MAX_BYTES || path_bytes > MAX_PATH_BYTES {
            return Err(bad(format!(
                "more than {MAX_ENTRIES} entries, {MAX_BYTES} bytes, or {MAX_PATH_BYTES} bytes of paths"
            )));
        }
        unpack_entry(copy, &root, &mut entry, &mut directories)
            .map_err(|error| prefix_path(error, path))?;
        io::copy(&mut entry, &mut io::sink()).map_err(|error| bad(error.to_string()))?;
    }
    // Deepest last in the archive's order: times of directories are set after their children.
    for (directory, metadata) in directories.into_iter().rev() {
        let fd = root.open_directory(&directory).map_err(|error| CopyError::io(path, error))?;
        metadata.apply(&fd).map_err(|error| CopyError::io(path, error))?;
    }
    Ok(())
}

fn prefix_path(error: CopyError, archive: &str) -> CopyError {
    match error {
        CopyError::Io { path, source } => {
            CopyError::Io { path: format!("{archive}: {path}"), source }
        }
        other => other,
    }
}

fn unpack_entry(
    copy: &mut Copy<'_>,
    root: &Root,
    entry: &mut tar::Entry<'_, Bounded<Archive>>,
    directories: &mut Vec<(Vec<u8>, Metadata)>,
) -> Result<(), CopyError> {
    let kind = entry.header().entry_type();
    if kind.is_pax_global_extensions() {
        // A comment about the archive, such as the commit that git made it of.
        return Ok(());
    }
    let name = entry.path_bytes().into_owned();
    let shown = String::from_utf8_lossy(&name).into_owned();
    let fail = |error: io::Error| CopyError::io(shown.as_str(), error);
    let wanted = components(&name).join(&b'/');
    let (parent, _) = split(&wanted);
    let parent = root.resolve(parent).map_err(fail)?;
    let file_name = components(&wanted).pop().filter(|part| part != b"..");
    let metadata = metadata_of(copy, entry.header()).map_err(fail)?;
    let Some(file_name) = file_name else {
        // The destination itself, or a path that only climbs.
        return Ok(());
    };
    let into = ensure(root, &parent, &copy.rules.fresh_directory())?;
    if kind.is_dir() {
        let path = [parent.as_slice(), b"/", &file_name].concat();
        // A directory takes the place of a file or a link, and is merged into a directory.
        node::clear(&into, &file_name).map_err(fail)?;
        ensure(root, &path, &metadata)?;
        directories.push((path, metadata));
        return Ok(());
    }
    make_room(&into, &file_name, &shown)?;
    let link = || entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
    match kind {
        tar::EntryType::Symlink => {
            node::make_symlink(&into, &file_name, &link(), &metadata).map_err(fail)
        }
        tar::EntryType::Link => {
            let target = root.resolve(&link()).map_err(fail)?;
            let (directory, target_name) = split(&target);
            let from = root.open_directory(directory).map_err(|error| fail(error.into()))?;
            node::make_hardlink(&from, target_name, &into, &file_name).map_err(fail)
        }
        tar::EntryType::Fifo => {
            node::make_special(&into, &file_name, FileType::Fifo, 0, &metadata).map_err(fail)
        }
        tar::EntryType::Char | tar::EntryType::Block => {
            let header = entry.header();
            let number = |part: io::Result<Option<u32>>| part.map(Option::unwrap_or_default);
            let major = number(header.device_major()).map_err(fail)?;
            let minor = number(header.device_minor()).map_err(fail)?;
            let kind = match kind {
                tar::EntryType::Char => FileType::CharacterDevice,
                _ => FileType::BlockDevice,
            };
            let device = rustix::fs::makedev(major, minor);
            node::make_special(&into, &file_name, kind, device, &metadata).map_err(fail)
        }
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            let capability = capability(entry).map_err(fail)?;
            let file = node::make_file(&into, &file_name).map_err(fail)?;
            let bytes =
                sparse::write_stream(entry, &file, &mut Vec::new(), |_| Ok(())).map_err(fail)?;
            metadata.apply(&file).map_err(fail)?;
            if let Some(value) = capability {
                node::set_capability(&file, &value).map_err(fail)?;
            }
            copy.count(bytes);
            Ok(())
        }
        other => Err(CopyError::Archive {
            path: shown,
            problem: format!("entries of type {:?} are not supported", other.as_byte() as char),
        }),
    }
}

/// The capabilities of a program, the one attribute that a layer holds.
fn capability(entry: &mut tar::Entry<'_, Bounded<Archive>>) -> io::Result<Option<Vec<u8>>> {
    let Some(records) = entry.pax_extensions()? else { return Ok(None) };
    for record in records {
        let record = record?;
        if record.key_bytes() == b"SCHILY.xattr.security.capability" {
            return Ok(Some(record.value_bytes().to_vec()));
        }
    }
    Ok(None)
}

/// Owner and mode of an entry: `--chown` counts for what an archive holds, `--chmod` does not.
fn metadata_of(copy: &Copy<'_>, header: &tar::Header) -> io::Result<Metadata> {
    let HeaderNumbers { uid, gid, mode, mtime_secs } = HeaderNumbers::of(header)?;
    let modified = Timespec { tv_sec: mtime_secs, tv_nsec: 0 };
    let found = Metadata { uid, gid, mode, modified };
    Ok(copy.rules.apply_to_unpacked(found))
}
