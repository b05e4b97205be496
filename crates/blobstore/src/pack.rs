//! Writing packs: files in path order, in independent zstd frames.
//!
//! Small files share a frame of about 256 KiB; bigger ones have frames of their own, so that any
//! file is one ranged read. A pack ends after a file whose digest says so, once it has 4 MiB: the
//! borders depend on content alone, so one changed file changes one pack.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use common::Digest;
use common::digest::Hasher;
use common::tree::{Pack, Part};

/// Uncompressed bytes of a frame that small files share.
const SHARED_FRAME_BYTES: usize = 256 << 10;
/// Uncompressed bytes of a frame of a big file.
const OWN_FRAME_BYTES: usize = 4 << 20;
/// A pack may end from this size on.
const MIN_PACK_BYTES: u64 = 4 << 20;
/// A pack ends at this size.
const MAX_PACK_BYTES: u64 = 16 << 20;
/// Fast, and a good part of what slower levels reach.
const LEVEL: i32 = 1;

/// A finished pack on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackFile {
    /// What manifests say of it.
    pub pack: Pack,
    /// Where it is.
    pub path: PathBuf,
}

/// A file that was put into packs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Digest of its content.
    pub digest: Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Number of the parts, to be had from [`PackWriter::finish`].
    file: usize,
}

/// All packs and where each file is in them.
#[derive(Debug, Default)]
pub struct Packs {
    /// The packs.
    pub packs: Vec<PackFile>,
    parts: Vec<Vec<Part>>,
}

impl Packs {
    /// Where a file is.
    pub fn parts(&self, file: &Packed) -> &[Part] {
        &self.parts[file.file]
    }
}

/// Writes packs into a directory.
pub struct PackWriter {
    directory: PathBuf,
    packs: Packs,
    current: Option<Current>,
    /// The frame that small files share, not yet compressed.
    frame: Vec<u8>,
    /// Files in `frame`: number, start, length.
    pending: Vec<(usize, u64, u64)>,
    compressor: zstd::bulk::Compressor<'static>,
}

struct Current {
    file: File,
    path: PathBuf,
    hasher: Hasher,
    size_bytes: u64,
}

impl PackWriter {
    /// A writer of packs into the existing directory.
    pub fn new(directory: &Path) -> io::Result<Self> {
        Ok(Self {
            directory: directory.to_owned(),
            packs: Packs::default(),
            current: None,
            frame: Vec::new(),
            pending: Vec::new(),
            compressor: zstd::bulk::Compressor::new(LEVEL)?,
        })
    }

    /// Reads a file to its end and puts it into packs.
    pub fn add(&mut self, mut reader: impl Read) -> io::Result<Packed> {
        let file = self.packs.parts.len();
        self.packs.parts.push(Vec::new());
        let mut hasher = Hasher::new();
        let mut size_bytes = 0;
        let mut chunk = Vec::with_capacity(SHARED_FRAME_BYTES);
        // A first bite decides whether the file is small.
        reader.by_ref().take(SHARED_FRAME_BYTES as u64).read_to_end(&mut chunk)?;
        if chunk.len() < SHARED_FRAME_BYTES {
            hasher.update(&chunk);
            size_bytes = chunk.len() as u64;
            if !chunk.is_empty() {
                if self.frame.len() + chunk.len() > SHARED_FRAME_BYTES {
                    self.flush_frame()?;
                }
                self.pending.push((file, self.frame.len() as u64, size_bytes));
                self.frame.extend_from_slice(&chunk);
            }
        } else {
            self.flush_frame()?;
            loop {
                let rest = OWN_FRAME_BYTES - chunk.len();
                reader.by_ref().take(rest as u64).read_to_end(&mut chunk)?;
                if chunk.is_empty() {
                    break;
                }
                hasher.update(&chunk);
                size_bytes += chunk.len() as u64;
                let part = self.write_frame(&chunk)?;
                self.packs.parts[file].push(Part { size_bytes: chunk.len() as u64, ..part });
                chunk.clear();
            }
        }
        let digest = hasher.finish();
        self.end_pack_after(&digest)?;
        Ok(Packed { digest, size_bytes, file })
    }

    /// The packs.
    pub fn finish(mut self) -> io::Result<Packs> {
        self.flush_frame()?;
        self.end_pack();
        Ok(self.packs)
    }

    fn end_pack_after(&mut self, digest: &Digest) -> io::Result<()> {
        let size = self.current.as_ref().map_or(0, |current| current.size_bytes);
        let here = digest.as_bytes()[0] < 64;
        if size >= MAX_PACK_BYTES || (size >= MIN_PACK_BYTES && here) {
            self.flush_frame()?;
            self.end_pack();
        }
        Ok(())
    }

    fn flush_frame(&mut self) -> io::Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let frame = std::mem::take(&mut self.frame);
        let part = self.write_frame(&frame)?;
        for (file, skip_bytes, size_bytes) in std::mem::take(&mut self.pending) {
            self.packs.parts[file].push(Part { skip_bytes, size_bytes, ..part });
        }
        Ok(())
    }

    /// Compresses and writes one frame.
    fn write_frame(&mut self, bytes: &[u8]) -> io::Result<Part> {
        let compressed = self.compressor.compress(bytes)?;
        let pack = u32::try_from(self.packs.packs.len()).map_err(io::Error::other)?;
        if self.current.is_none() {
            let path = self.directory.join(format!("pack-{pack}"));
            let file = File::create_new(&path)?;
            self.current = Some(Current { file, path, hasher: Hasher::new(), size_bytes: 0 });
        }
        let Some(current) = &mut self.current else { return Err(io::Error::other("no pack")) };
        let frame_offset = current.size_bytes;
        current.file.write_all(&compressed)?;
        current.hasher.update(&compressed);
        current.size_bytes += compressed.len() as u64;
        let frame_bytes = compressed.len() as u64;
        Ok(Part { pack, frame_offset, frame_bytes, skip_bytes: 0, size_bytes: 0 })
    }

    fn end_pack(&mut self) {
        if let Some(current) = self.current.take() {
            let pack = Pack { digest: current.hasher.finish(), size_bytes: current.size_bytes };
            self.packs.packs.push(PackFile { pack, path: current.path });
        }
    }
}
