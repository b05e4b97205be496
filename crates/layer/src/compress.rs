//! Blobs: compressed in blocks, on all processors.
//!
//! Each block is a gzip member or a zstd frame of its own (RFC 1952 and RFC 8878 let them follow
//! each other in one file), so blocks do not wait for each other, and the bytes do not depend on
//! how many processors there are. Changing block sizes or levels changes digests that caches rest
//! on.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};

use common::Digest;
use common::digest::Hasher;
use libdeflater::{CompressionLvl, Compressor};

/// How a blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// gzip: what every registry and runtime takes.
    #[default]
    Gzip,
    /// zstd.
    Zstd,
    /// Not at all.
    None,
}

impl Compression {
    /// The media type of a layer in this form.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => oci::media_type::OCI_LAYER_GZIP,
            Self::Zstd => oci::media_type::OCI_LAYER_ZSTD,
            Self::None => oci::media_type::OCI_LAYER,
        }
    }

    /// The form that a media type names, OCI's or Docker's.
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        let name = oci::media_type::layer_as_oci(media_type);
        [Self::Gzip, Self::Zstd, Self::None].into_iter().find(|form| form.media_type() == name)
    }
}

/// libdeflate's: as small as zlib's level 3 in half its time.
const GZIP_LEVEL: i32 = 1;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;
/// Uncompressed bytes of a gzip member: bigger ones are hardly smaller when compressed.
const GZIP_BLOCK_BYTES: usize = 1 << 20;
/// Uncompressed bytes of a zstd frame: its window reaches further.
const ZSTD_BLOCK_BYTES: usize = 4 << 20;
/// Blocks of one blob that are compressed or wait to be written.
const MAX_PENDING: usize = 16;

/// Writes a blob to a file.
pub(crate) struct BlobWriter {
    file: BufWriter<File>,
    hasher: Hasher,
    size_bytes: u64,
    compression: Compression,
    /// Another one than the usual level.
    level: Option<i32>,
    block: Vec<u8>,
    /// Blocks under way, in order.
    pending: VecDeque<Receiver<io::Result<Vec<u8>>>>,
}

impl BlobWriter {
    /// Writes to the new file `out`.
    pub(crate) fn create(out: &Path, compression: Compression) -> io::Result<Self> {
        Self::create_at(out, compression, None)
    }

    /// The same, with a level that somebody asked for.
    pub(crate) fn create_at(
        out: &Path,
        compression: Compression,
        level: Option<i32>,
    ) -> io::Result<Self> {
        let file = BufWriter::with_capacity(256 << 10, File::create_new(out)?);
        let (hasher, pending) = (Hasher::new(), VecDeque::new());
        Ok(Self { file, hasher, size_bytes: 0, compression, level, block: Vec::new(), pending })
    }

    /// Ends the blob. Returns its digest and its length in bytes.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, u64)> {
        if !self.block.is_empty() {
            let block = std::mem::take(&mut self.block);
            if self.pending.is_empty() {
                let compressed = compress(self.compression, self.level, &block)?;
                self.store(&compressed)?;
            } else {
                self.send(block)?;
            }
        }
        while let Some(next) = self.pending.pop_front() {
            self.receive(&next)?;
        }
        self.file.flush()?;
        Ok((self.hasher.finish(), self.size_bytes))
    }

    fn send(&mut self, block: Vec<u8>) -> io::Result<()> {
        let (sender, receiver) = sync_channel(1);
        let (compression, level) = (self.compression, self.level);
        // A receiver that is gone has failed for another reason.
        rayon::spawn_fifo(move || {
            let _ = sender.send(compress(compression, level, &block));
        });
        self.pending.push_back(receiver);
        if self.pending.len() >= MAX_PENDING
            && let Some(first) = self.pending.pop_front()
        {
            self.receive(&first)?;
        }
        Ok(())
    }

    fn receive(&mut self, next: &Receiver<io::Result<Vec<u8>>>) -> io::Result<()> {
        let compressed = next.recv().map_err(|_| io::Error::other("a compressor has died"))??;
        self.store(&compressed)
    }

    fn store(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.size_bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let block_bytes = match self.compression {
            Compression::Gzip => GZIP_BLOCK_BYTES,
            Compression::Zstd => ZSTD_BLOCK_BYTES,
            Compression::None => {
                self.store(bytes)?;
                return Ok(bytes.len());
            }
        };
        let count = bytes.len().min(block_bytes - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == block_bytes {
            let block = std::mem::replace(&mut self.block, Vec::with_capacity(block_bytes));
            self.send(block)?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

thread_local! {
    /// Making one takes longer than compressing a small layer.
    static COMPRESSOR: RefCell<Option<(i32, Compressor)>> = const { RefCell::new(None) };
}

fn compress(compression: Compression, level: Option<i32>, block: &[u8]) -> io::Result<Vec<u8>> {
    match compression {
        Compression::Gzip => COMPRESSOR.with_borrow_mut(|kept| {
            let number = level.unwrap_or(GZIP_LEVEL);
            let (_, compressor) = match kept {
                Some(kept) if kept.0 == number => kept,
                _ => {
                    let level = CompressionLvl::new(number);
                    let level = level.map_err(|_| io::Error::other("no such level"))?;
                    kept.insert((number, Compressor::new(level)))
                }
            };
            let mut out = vec![0; compressor.gzip_compress_bound(block.len())];
            let length = compressor.gzip_compress(block, &mut out).map_err(io::Error::other)?;
            out.truncate(length);
            Ok(out)
        }),
        Compression::Zstd => zstd::bulk::compress(block, level.unwrap_or(ZSTD_LEVEL)),
        Compression::None => Ok(block.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    /// Bytes that are neither noise nor all alike.
    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from((at * at / 7 + at % 13) % 251).unwrap()).collect()
    }

    #[test]
    fn blocks_that_follow_each_other_are_one_file_to_every_reader() {
        let root = tempfile::tempdir().unwrap();
        let length = 2 * ZSTD_BLOCK_BYTES + 17;
        for (number, compression) in
            [Compression::Gzip, Compression::Zstd, Compression::None].into_iter().enumerate()
        {
            let path = root.path().join(number.to_string());
            let mut writer = BlobWriter::create(&path, compression).unwrap();
            for part in content(length).chunks(99_999) {
                writer.write_all(part).unwrap();
            }
            let (digest, size_bytes) = writer.finish().unwrap();
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!((Digest::of(&bytes), bytes.len() as u64), (digest, size_bytes));
            let mut plain = Vec::new();
            match compression {
                Compression::Gzip => {
                    flate2::read::MultiGzDecoder::new(&*bytes).read_to_end(&mut plain).unwrap()
                }
                Compression::Zstd => {
                    zstd::Decoder::new(&*bytes).unwrap().read_to_end(&mut plain).unwrap()
                }
                Compression::None => (&*bytes).read_to_end(&mut plain).unwrap(),
            };
            assert!(plain == content(length), "{compression:?}");
        }
    }
}
