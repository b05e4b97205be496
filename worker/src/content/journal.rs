//! What the store remembers of its entries, on disk.
//!
//! ```text
//! journal   one JSON object a line: a record of an entry, or that it is gone; the last one counts
//! synced    the boot id and a number: see [`Mark`]
//! ```
//!
//! A line that cannot be read is passed over: then the entry it spoke of has no record, which is
//! always allowed. docs/decisions/0008 says why this is enough.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use common::Digest;
use serde::{Deserialize, Serialize};

use super::entry::Entry;

/// Longest journal that is read.
const MAX_BYTES: u64 = 1 << 30;
/// A journal is rewritten when it has so many lines more than entries.
const SLACK: usize = 10_000;

/// What is remembered of an entry. Changing the fields' names forgets what older stores know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Grows with each entry that gets its name, over the whole life of the store.
    pub(super) sequence: u64,
    /// Space it takes.
    pub(super) bytes: Option<u64>,
    /// Whether that was measured, and not just guessed.
    #[serde(default)]
    pub(super) is_measured: bool,
    /// When it was last used, in milliseconds since 1970.
    pub(super) used: u64,
    /// Digest of everything in it: layers only.
    #[serde(default)]
    pub(super) tree: Option<Digest>,
    /// A cache that commands may be writing to.
    #[serde(default)]
    pub(super) is_open: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    entry: Entry,
    /// None: it is gone.
    record: Option<Record>,
}

/// The journal, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    file: Arc<File>,
    lines: usize,
    /// The last write ended in the middle of a line.
    is_torn: bool,
}

impl Journal {
    /// Reads all records.
    pub(super) fn read(root: &Path) -> io::Result<HashMap<Entry, Record>> {
        let mut records = HashMap::new();
        let path = root.join("journal");
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(records),
            Err(error) => return Err(error),
            // Without records everything is measured again; no reason to fail.
            Ok(found) if found.len() > MAX_BYTES => return Ok(records),
            Ok(_) => {}
        }
        for line in fs::read(&path)?.split(|byte| *byte == b'\n') {
            match serde_json::from_slice::<Line>(line) {
                Ok(Line { entry, record: Some(record) }) => {
                    records.insert(entry, record);
                }
                Ok(Line { entry, record: None }) => {
                    records.remove(&entry);
                }
                Err(_) => {}
            }
        }
        Ok(records)
    }

    /// A new journal with these records takes the place of the old one.
    pub(super) fn rewrite(
        root: &Path,
        records: impl Iterator<Item = (Entry, Record)>,
    ) -> io::Result<Self> {
        let (path, new) = (root.join("journal"), root.join("tmp/journal"));
        let mut writer = io::BufWriter::new(File::create(&new)?);
        let mut lines = 0;
        for (entry, record) in records {
            writer.write_all(&encode(entry, Some(record))?)?;
            lines += 1;
        }
        writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(root)?.sync_all()?;
        let file = Arc::new(OpenOptions::new().append(true).open(&path)?);
        Ok(Self { file, lines, is_torn: false })
    }

    /// Remembers a record, or that an entry is gone.
    pub(super) fn append(&mut self, entry: Entry, record: Option<Record>) -> io::Result<()> {
        let mut line = encode(entry, record)?;
        if self.is_torn {
            line.insert(0, b'\n');
        }
        self.is_torn = true;
        (&*self.file).write_all(&line)?;
        self.is_torn = false;
        self.lines += 1;
        Ok(())
    }

    /// The file, to be synced without holding the journal.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Whether it is much longer than it has to be.
    pub(super) const fn is_long(&self, entries: usize) -> bool {
        self.lines > entries * 4 + SLACK
    }
}

fn encode(entry: Entry, record: Option<Record>) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Line { entry, record })?;
    line.push(b'\n');
    Ok(line)
}

/// Up to which sequence number entries survive a crash of the machine, and in which boot of the
/// machine this was written: within one boot, everything that has its name is whole.
///
/// It has a fixed length and is written in place, so that it can be set back on a full disk.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    pub(super) boot: String,
    pub(super) sequence: u64,
}

impl Mark {
    /// Reads the mark; a store that has none, or an unreadable one, has never been synced.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let path = root.join("synced");
        let text = fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(text.get(..text.len().min(200)).unwrap_or_default());
        let mut words = text.split_whitespace();
        let boot = words.next().unwrap_or_default().to_owned();
        let sequence = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        Ok(Self { file, boot, sequence })
    }

    /// Writes it, for good.
    pub(super) fn set(&mut self, boot: &str, sequence: u64) -> io::Result<()> {
        let text = format!("{boot:<60} {sequence:020}\n");
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.sync_data()?;
        (self.boot, self.sequence) = (boot.to_owned(), sequence);
        Ok(())
    }
}

/// The id of this boot of the machine.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
