//! Files to build from: the same for the same seed, and about as compressible as programs and
//! sources are.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// Bytes of a block, which is either noise or made of words.
const BLOCK_BYTES: usize = 1024;

/// Words of made-up text.
const WORDS: [&str; 16] = [
    "return ", "static ", "struct ", "const ", "value", " = ", "self.", "include", "\n    ",
    "the ", "of ", "and ", "(", ");\n", "0x", "name_",
];

/// Makes content.
pub(crate) struct Content {
    random: SmallRng,
}

impl Content {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: SmallRng::seed_from_u64(seed) }
    }

    /// Some bytes, a quarter of them noise.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + BLOCK_BYTES);
        while bytes.len() < length {
            let end = bytes.len() + BLOCK_BYTES;
            if self.random.random_range(0..4) == 0 {
                let start = bytes.len();
                bytes.resize(end, 0);
                self.random.fill_bytes(&mut bytes[start..]);
            } else {
                while bytes.len() < end {
                    let word = WORDS[self.random.random_range(0..WORDS.len())];
                    bytes.extend_from_slice(word.as_bytes());
                    if self.random.random_range(0..4) == 0 {
                        let _ = write!(bytes, "{}", self.random.random_range(0..100_000));
                    }
                }
            }
        }
        bytes.truncate(length);
        bytes
    }

    /// Writes `count` files of `total_bytes` together into directories of a hundred.
    pub(crate) fn files(
        &mut self,
        root: &Path,
        count: usize,
        total_bytes: usize,
    ) -> anyhow::Result<()> {
        let mean = total_bytes / count;
        for number in 0..count {
            let directory = root.join(format!("d{:03}", number / 100));
            if number % 100 == 0 {
                std::fs::create_dir_all(&directory)?;
            }
            let length = self.random.random_range(mean / 4..mean * 7 / 4);
            std::fs::write(
                directory.join(format!("f{:02}.txt", number % 100)),
                self.bytes(length),
            )?;
        }
        Ok(())
    }

    /// Writes one file of `length` bytes.
    pub(crate) fn file(&mut self, path: &Path, length: usize) -> anyhow::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        let mut left = length;
        while left > 0 {
            let part = left.min(1 << 20);
            file.write_all(&self.bytes(part))?;
            left -= part;
        }
        Ok(file.flush()?)
    }
}
