//! A layer's blob in another form: compressed otherwise, or with younger files made older.
//!
//! The bytes of the archive stay as they are but for the times in its headers, so that the result
//! is the same wherever and whenever it is made.

use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use common::Digest;

use crate::compress::{BlobWriter, Compression};
use crate::extract::decompress;
use crate::pack::{Hashing, PackedLayer};

/// Bytes of a block of an archive.
const BLOCK: usize = 512;
/// Longest extended header that is read.
const MAX_EXTENDED_BYTES: u64 = 1 << 20;

/// The form that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Recompress {
    /// How the blob is compressed.
    pub compression: Compression,
    /// How hard; absent: as usual.
    pub level: Option<i32>,
    /// No file is younger, in seconds since 1970.
    pub latest: Option<u64>,
}

/// A layer could not be brought into another form.
#[derive(Debug, thiserror::Error)]
pub enum RecompressError {
    /// What was read is not the layer.
    #[error("the blob is not the layer {0}")]
    Damaged(Digest),
    /// Reading or writing failed.
    #[error("cannot compress a layer anew")]
    Io(#[from] io::Error),
}

/// Writes the layer that `reader` gives (gzip, zstd or plain, told by its first bytes) in the form
/// `wish` to the new file `out`. `diff_id` is the digest of its archive, which is checked.
pub fn recompress(
    reader: impl Read,
    diff_id: &Digest,
    out: &Path,
    wish: Recompress,
) -> Result<PackedLayer, RecompressError> {
    let plain = decompress(BufReader::with_capacity(256 << 10, reader))?;
    let mut plain = Tee { inner: plain, hashing: Hashing::new(io::sink()) };
    let blob = BlobWriter::create_at(out, wish.compression, wish.level)?;
    let mut archive = Hashing::new(blob);
    if let Some(latest) = wish.latest {
        copy_not_younger(&mut plain, &mut archive, latest)?;
    }
    io::copy(&mut plain, &mut archive)?;
    if plain.hashing.finish().1 != *diff_id {
        return Err(RecompressError::Damaged(*diff_id));
    }
    let (blob, diff_id, uncompressed_bytes) = archive.finish();
    let (blob, size_bytes) = blob.finish()?;
    let media_type = wish.compression.media_type();
    Ok(PackedLayer { diff_id, blob, size_bytes, media_type, uncompressed_bytes })
}

/// Hashes what is read through it.
struct Tee<R> {
    inner: R,
    hashing: Hashing<io::Sink>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hashing.write_all(&buffer[..count])?;
        Ok(count)
    }
}

/// Copies an archive up to its end mark, with no time later than `latest`.
fn copy_not_younger(
    reader: &mut impl Read,
    writer: &mut impl Write,
    latest: u64,
) -> io::Result<()> {
    let mut block = [0; BLOCK];
    // What an extended header says of the entry behind it.
    let mut real_size = None;
    loop {
        reader.read_exact(&mut block)?;
        if block.iter().all(|byte| *byte == 0) {
            return writer.write_all(&block);
        }
        let mut header = tar::Header::from_byte_slice(&block).clone();
        let kind = header.entry_type();
        let is_extended = kind.is_pax_local_extensions() || kind.is_pax_global_extensions();
        if !is_extended && header.mtime()? > latest {
            header.set_mtime(latest);
            header.set_cksum();
        }
        writer.write_all(header.as_bytes())?;
        let size = match real_size.take() {
            Some(size) if !is_extended => size,
            _ => header.entry_size()?,
        };
        let padded = size.div_ceil(BLOCK as u64) * BLOCK as u64;
        if is_extended {
            if size > MAX_EXTENDED_BYTES {
                return Err(io::Error::other("an extended header is too long"));
            }
            let mut bytes = Vec::new();
            (&mut *reader).take(padded).read_to_end(&mut bytes)?;
            real_size = size_in(&bytes[..bytes.len().min(usize::try_from(size).unwrap_or(0))])?;
            writer.write_all(&bytes)?;
        } else if io::copy(&mut (&mut *reader).take(padded), writer)? != padded {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The size that an extended header gives. One with times would have to be written anew: layers
/// that are made here have none.
fn size_in(records: &[u8]) -> io::Result<Option<u64>> {
    let mut size = None;
    for record in tar::PaxExtensions::new(records) {
        let record = record?;
        match record.key_bytes() {
            b"size" => {
                let value = record.value().ok().and_then(|text| text.parse().ok());
                size = Some(value.ok_or_else(|| io::Error::other("a size is no number"))?);
            }
            b"mtime" | b"atime" | b"ctime" => {
                return Err(io::Error::other("the layer has times in extended headers"));
            }
            _ => {}
        }
    }
    Ok(size)
}
