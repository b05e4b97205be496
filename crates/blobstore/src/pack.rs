//! Packs: files in path order, in independent zstd frames.
//!
//! Small files share a frame of about 256 KiB; bigger ones have frames of their own, so that any
//! file is one ranged read. A pack ends after a file whose digest says so, once it holds 6 MiB: the
//! borders depend on content alone, so one changed file changes one pack. Which files make up a pack
//! is known before anything is compressed: packs are made at the same time, and those that were made
//! before need not be made at all.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use common::Digest;
use common::digest::Hasher;
use common::tree::{Pack, Part};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Uncompressed bytes of a frame that small files share.
const SHARED_FRAME_BYTES: u64 = 256 << 10;
/// Uncompressed bytes of a frame of a big file.
const OWN_FRAME_BYTES: u64 = 4 << 20;
/// A pack may end from this many uncompressed bytes on.
const MIN_PACK_BYTES: u64 = 6 << 20;
/// A pack ends at this many uncompressed bytes.
const MAX_PACK_BYTES: u64 = 16 << 20;
/// Frames that are compressed at the same time: they are in memory meanwhile.
const PARALLEL_FRAMES: usize = 8;
/// Fast, and a good part of what slower levels reach.
const LEVEL: i32 = 1;

/// A file that goes into packs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackInput {
    /// Where it is.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Digest of its content.
    pub digest: Digest,
}

/// A pack that is known, made or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadePack {
    /// What manifests say of it.
    pub pack: Pack,
    /// Lengths of its frames in bytes, compressed.
    frame_bytes: Vec<u64>,
}

/// Which files make up a pack.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackPlan {
    frames: Vec<Vec<Run>>,
}

/// Some bytes of one file in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    file: usize,
    /// Where in the file.
    start: u64,
    /// Where in the frame.
    skip: u64,
    size: u64,
}

/// Divides files into packs, in their order, one file after the other.
#[derive(Debug, Default)]
pub struct Planner {
    pack: PackPlan,
    pack_bytes: u64,
    /// A frame of small files that is not full yet.
    shared: Vec<Run>,
    shared_bytes: u64,
}

impl Planner {
    /// The next file. A pack that ends with it is complete.
    pub fn push(&mut self, number: usize, file: &PackInput) -> Option<PackPlan> {
        let size = file.size_bytes;
        if size < SHARED_FRAME_BYTES {
            if self.shared_bytes + size > SHARED_FRAME_BYTES {
                self.end_frame();
            }
            if size > 0 {
                self.shared.push(Run { file: number, start: 0, skip: self.shared_bytes, size });
                self.shared_bytes += size;
            }
        } else {
            self.end_frame();
            let mut start = 0;
            while start < size {
                let size = OWN_FRAME_BYTES.min(size - start);
                self.pack.frames.push(vec![Run { file: number, start, skip: 0, size }]);
                start += size;
            }
        }
        self.pack_bytes += size;
        let is_border = file.digest.as_bytes()[0] < 64;
        let is_full =
            self.pack_bytes >= MAX_PACK_BYTES || (self.pack_bytes >= MIN_PACK_BYTES && is_border);
        if is_full { self.finish() } else { None }
    }

    /// What is left, if anything is.
    pub fn finish(&mut self) -> Option<PackPlan> {
        self.end_frame();
        self.pack_bytes = 0;
        let pack = std::mem::take(&mut self.pack);
        (!pack.frames.is_empty()).then_some(pack)
    }

    fn end_frame(&mut self) {
        if !self.shared.is_empty() {
            self.pack.frames.push(std::mem::take(&mut self.shared));
        }
        self.shared_bytes = 0;
    }
}

impl PackPlan {
    /// What the pack's bytes depend on.
    pub fn key(&self, files: &[PackInput]) -> Digest {
        let mut hasher = Hasher::new();
        for frame in &self.frames {
            hasher.update(&(frame.len() as u64).to_le_bytes());
            for run in frame {
                hasher.update(files[run.file].digest.as_bytes());
                hasher.update(&run.start.to_le_bytes());
                hasher.update(&run.size.to_le_bytes());
            }
        }
        hasher.finish()
    }

    /// Where the files are in the pack, which is the manifest's `number`: file and part, in order.
    pub fn parts(&self, number: u32, made: &MadePack) -> Vec<(usize, Part)> {
        let mut frame_offset = 0;
        let mut parts = Vec::new();
        for (frame, &frame_bytes) in self.frames.iter().zip(&made.frame_bytes) {
            parts.extend(frame.iter().map(|run| {
                let (skip_bytes, size_bytes) = (run.skip, run.size);
                let part = Part { pack: number, frame_offset, frame_bytes, skip_bytes, size_bytes };
                (run.file, part)
            }));
            frame_offset += frame_bytes;
        }
        parts
    }

    /// Position of the last file in it.
    pub fn last_file(&self) -> Option<usize> {
        Some(self.frames.last()?.last()?.file)
    }

    /// Makes the pack as the new file `out`. Files of which the content is at hand are not read; one
    /// that is not what its digest says any more is an error of kind `InvalidData`.
    pub fn make(
        &self,
        files: &[PackInput],
        contents: &HashMap<usize, Vec<u8>>,
        out: &Path,
    ) -> io::Result<MadePack> {
        let mut file = File::create_new(out)?;
        let mut reader = FileReader { files, contents, current: None };
        let mut hasher = Hasher::new();
        let mut frame_bytes = Vec::with_capacity(self.frames.len());
        for batch in self.frames.chunks(PARALLEL_FRAMES) {
            let contents: Vec<Vec<u8>> =
                batch.iter().map(|frame| reader.frame(frame)).collect::<io::Result<_>>()?;
            let compressed: Vec<io::Result<Vec<u8>>> =
                contents.par_iter().map(|content| zstd::bulk::compress(content, LEVEL)).collect();
            for frame in compressed {
                let frame = frame?;
                file.write_all(&frame)?;
                hasher.update(&frame);
                frame_bytes.push(frame.len() as u64);
            }
        }
        reader.finish()?;
        let pack = Pack { digest: hasher.finish(), size_bytes: frame_bytes.iter().sum() };
        Ok(MadePack { pack, frame_bytes })
    }
}

/// Reads files from begin to end and checks them.
struct FileReader<'a> {
    files: &'a [PackInput],
    contents: &'a HashMap<usize, Vec<u8>>,
    current: Option<(usize, File, Hasher)>,
}

impl FileReader<'_> {
    fn frame(&mut self, runs: &[Run]) -> io::Result<Vec<u8>> {
        let size: u64 = runs.iter().map(|run| run.size).sum();
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        for run in runs {
            if let Some(known) = self.contents.get(&run.file) {
                // Its digest was made of these very bytes.
                let start = usize::try_from(run.start).unwrap_or(usize::MAX);
                let end = start.saturating_add(usize::try_from(run.size).unwrap_or(usize::MAX));
                content.extend_from_slice(known.get(start..end).ok_or_else(changed)?);
                continue;
            }
            if run.start == 0 {
                self.finish()?;
                let file = File::open(&self.files[run.file].path)?;
                self.current = Some((run.file, file, Hasher::new()));
            }
            let Some((_, file, hasher)) = &mut self.current else { continue };
            let start = content.len();
            Read::by_ref(file).take(run.size).read_to_end(&mut content)?;
            hasher.update(&content[start..]);
        }
        if content.len() as u64 == size { Ok(content) } else { Err(changed()) }
    }

    /// The file that was read must be the one that was meant.
    fn finish(&mut self) -> io::Result<()> {
        let Some((number, _, hasher)) = self.current.take() else { return Ok(()) };
        if hasher.finish() == self.files[number].digest { Ok(()) } else { Err(changed()) }
    }
}

fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a file changed while it was read")
}
