//! What a store holds, for people.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::ContentStore;
use super::entry::Kind;
use super::index::now;
use super::policy::Limits;

/// What a store holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Usage {
    /// Bytes of all entries.
    total_bytes: u64,
    max_bytes: u64,
    free_bytes: u64,
    min_free_bytes: u64,
    kinds: Vec<KindUsage>,
    /// Least recently used first.
    entries: Vec<EntryUsage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KindUsage {
    kind: Kind,
    entries: u64,
    bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct EntryUsage {
    kind: Kind,
    /// The path in the data directory.
    name: String,
    bytes: u64,
    unused_secs: u64,
    is_pinned: bool,
}

impl ContentStore {
    pub(super) fn usage(&self, limits: Limits) -> std::io::Result<Usage> {
        self.index.measure_unknown();
        for known in self.index.known() {
            self.index.measure_changed(&known);
        }
        let now = now();
        let mut known = self.index.known();
        known.sort_unstable_by_key(|known| (known.record.used, known.entry));
        let entries: Vec<EntryUsage> = known
            .iter()
            .map(|known| EntryUsage {
                kind: known.entry.kind,
                name: known.entry.to_string(),
                bytes: known.record.bytes.unwrap_or(0),
                unused_secs: now.saturating_sub(known.record.used) / 1000,
                is_pinned: known.pins > 0,
            })
            .collect();
        let kinds = Kind::ALL.map(|kind| {
            let of_kind = || entries.iter().filter(|entry| entry.kind == kind);
            let bytes = of_kind().map(|entry| entry.bytes).sum();
            KindUsage { kind, entries: of_kind().count() as u64, bytes }
        });
        Ok(Usage {
            total_bytes: entries.iter().map(|entry| entry.bytes).sum(),
            max_bytes: limits.max_bytes,
            free_bytes: self.space()?.free_bytes,
            min_free_bytes: limits.min_free_bytes,
            kinds: kinds.into(),
            entries,
        })
    }
}

impl Usage {
    /// A table.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{:>10}  {:>8}  {:>6}  ENTRY", "SIZE", "UNUSED", "IN USE");
        for entry in &self.entries {
            let (bytes, age) = (size(entry.bytes), age(entry.unused_secs));
            let in_use = if entry.is_pinned { "yes" } else { "" };
            let _ = writeln!(text, "{bytes:>10}  {age:>8}  {in_use:>6}  {}", entry.name);
        }
        for kind in &self.kinds {
            let (bytes, name) = (size(kind.bytes), kind.kind.directory());
            let _ = writeln!(text, "{bytes:>10}  in {} {name}", kind.entries);
        }
        let _ = writeln!(
            text,
            "{:>10}  in all, of at most {}; {} are free on the disk, of at least {}",
            size(self.total_bytes),
            size(self.max_bytes),
            size(self.free_bytes),
            size(self.min_free_bytes),
        );
        text
    }
}

/// A size with at most one decimal.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut tenths, mut unit) = (bytes.saturating_mul(10) / 1024, 0);
    while tenths >= 10 * 1024 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

fn age(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs}s"),
        60..3600 => format!("{}m", secs / 60),
        3600..172_800 => format!("{}h", secs / 3600),
        _ => format!("{}d", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_short() {
        let sizes = [0, 1023, 1024, 1536, (1 << 20) - 1, 5 << 30, u64::MAX].map(size);
        let expected = ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1023.9 KiB", "5.0 GiB"];
        assert_eq!(sizes[..6], expected);
        assert!(sizes[6].ends_with("TiB"), "{}", sizes[6]);
        assert_eq!([59, 60, 3600, 172_799, 172_800].map(age), ["59s", "1m", "1h", "47h", "2d"]);
    }
}
