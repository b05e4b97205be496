//! Archives, told by their content.

use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;

/// Memory that an xz archive may ask for, in KiB: the highest preset of xz takes 65 MiB.
const MAX_XZ_KIB: u32 = 256 << 10;
/// Bytes that an archive may hold, and entries: a small file can unpack to anything.
const MAX_BYTES: u64 = 64 << 30;
const MAX_ENTRIES: usize = 2_000_000;
/// Length of a tar header.
const BLOCK: usize = 512;

/// What a stream is.
pub enum Opened<'a> {
    /// A tar archive, decompressed on the way.
    Archive(Box<dyn Read + 'a>),
    /// Something else, from its first byte.
    Other(Box<dyn Read + 'a>),
}

/// Looks at the beginning of a stream: an archive is a tar, plain or in gzip, bzip2 or xz, as
/// BuildKit tells contexts from Dockerfiles.
pub fn open<'a>(mut stream: impl Read + 'a) -> io::Result<Opened<'a>> {
    // A pipe may give a few bytes at a time.
    let mut start = Vec::new();
    stream.by_ref().take(BLOCK as u64).read_to_end(&mut start)?;
    let whole = Cursor::new(start.clone()).chain(stream);
    let archive: Box<dyn Read + 'a> = match start.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::read::MultiBzDecoder::new(whole)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            Box::new(lzma_rust2::XzReader::new_mem_limit(BufReader::new(whole), true, MAX_XZ_KIB))
        }
        block if is_tar_header(block) => Box::new(whole),
        _ => return Ok(Opened::Other(Box::new(whole))),
    };
    Ok(Opened::Archive(Box::new(archive.take(MAX_BYTES))))
}

/// Whether a block is a tar header: its checksum is right (POSIX pax, "ustar Interchange Format").
fn is_tar_header(block: &[u8]) -> bool {
    if block.len() < BLOCK {
        return false;
    }
    let digits = block[148..156].iter().filter(|byte| (b'0'..=b'7').contains(*byte));
    let stored = digits.fold(0_u32, |sum, digit| sum.wrapping_mul(8) + u32::from(digit - b'0'));
    let others = block[..148].iter().chain(&block[156..BLOCK]);
    let sum: u32 = others.map(|byte| u32::from(*byte)).sum();
    sum > 0 && stored == sum + 8 * u32::from(b' ')
}

/// When the youngest file of an archive was changed, in seconds since 1970. Nothing where it is no
/// archive, not a whole one, or one without files.
pub fn youngest(path: &Path) -> Option<i64> {
    let Opened::Archive(stream) = open(std::fs::File::open(path).ok()?).ok()? else { return None };
    let mut found = None;
    for entry in tar::Archive::new(stream).entries().ok()?.take(MAX_ENTRIES) {
        let entry = entry.ok()?;
        if entry.header().entry_type().is_file() {
            found = found.max(i64::try_from(entry.header().mtime().ok()?).ok());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn archive() -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, time) in [("a", 1_700_000_302), ("b", 1_700_000_000)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            header.set_mtime(time);
            archive.append_data(&mut header, name, &b"x"[..]).unwrap();
        }
        let mut directory = tar::Header::new_gnu();
        directory.set_entry_type(tar::EntryType::Directory);
        directory.set_size(0);
        directory.set_mtime(1_800_000_000);
        archive.append_data(&mut directory, "d/", &b""[..]).unwrap();
        archive.into_inner().unwrap()
    }

    #[test]
    fn archives_are_told_by_content_and_have_an_age() {
        let plain = archive();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let mut bzip = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip.write_all(&plain).unwrap();
        let options = lzma_rust2::XzOptions::with_preset(0);
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        xz.write_all(&plain).unwrap();
        let all =
            [plain.clone(), gzip.finish().unwrap(), bzip.finish().unwrap(), xz.finish().unwrap()];
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        for bytes in all {
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(youngest(&path), Some(1_700_000_302));
            let Ok(Opened::Archive(mut stream)) = open(bytes.as_slice()) else { panic!() };
            let mut read = Vec::new();
            stream.read_to_end(&mut read).unwrap();
            assert_eq!(read, plain);
        }
        std::fs::write(&path, "FROM alpine\n").unwrap();
        assert_eq!(youngest(&path), None);
        std::fs::write(&path, &plain[..700]).unwrap();
        assert_eq!(youngest(&path), None);
        let Ok(Opened::Other(mut stream)) = open(&b"FROM alpine\n"[..]) else { panic!() };
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "FROM alpine\n");
    }
}
