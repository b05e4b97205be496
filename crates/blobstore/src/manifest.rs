//! The stored form of a manifest: CBOR in one zstd frame. The digest is that of the stored bytes.
//!
//! Reading bounds everything: a manifest comes from a client.

use std::io::Read;

use common::tree::{Entry, EntryKind, Manifest, TreePath};

/// Longest stored form, in bytes.
pub const MAX_STORED_BYTES: usize = 64 << 20;
/// Longest CBOR, in bytes.
const MAX_DECODED_BYTES: u64 = 512 << 20;
/// Most entries.
const MAX_ENTRIES: usize = 2_000_000;
/// Longest frame, compressed or not, in bytes.
pub const MAX_FRAME_BYTES: u64 = 16 << 20;

/// Bytes that are no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Too long, in one of its forms.
    #[error("the manifest is too big")]
    TooBig,
    /// No zstd frame or no CBOR of the right shape.
    #[error("the manifest cannot be read: {0}")]
    Malformed(String),
    /// Entries that make no tree.
    #[error("the manifest is inconsistent at {path:?}: {problem}")]
    Inconsistent {
        /// The entry.
        path: String,
        /// What is wrong.
        problem: &'static str,
    },
}

/// The stored form.
pub fn encode(manifest: &Manifest) -> Result<Vec<u8>, ManifestError> {
    let malformed = |error: std::io::Error| ManifestError::Malformed(error.to_string());
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).map_err(malformed)?;
    ciborium::into_writer(manifest, &mut encoder)
        .map_err(|error| ManifestError::Malformed(error.to_string()))?;
    let bytes = encoder.finish().map_err(malformed)?;
    if bytes.len() > MAX_STORED_BYTES { Err(ManifestError::TooBig) } else { Ok(bytes) }
}

/// Reads and checks a stored form.
pub fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    if bytes.len() > MAX_STORED_BYTES {
        return Err(ManifestError::TooBig);
    }
    let malformed = |error: &dyn std::fmt::Display| ManifestError::Malformed(error.to_string());
    let decoder = zstd::Decoder::new(bytes).map_err(|error| malformed(&error))?;
    let mut reader = decoder.take(MAX_DECODED_BYTES);
    let manifest: Manifest =
        ciborium::from_reader(&mut reader).map_err(|error| malformed(&error))?;
    if reader.limit() == 0 || manifest.entries.len() > MAX_ENTRIES {
        return Err(ManifestError::TooBig);
    }
    check(&manifest)?;
    Ok(manifest)
}

fn check(manifest: &Manifest) -> Result<(), ManifestError> {
    let mut last: Option<&TreePath> = None;
    for entry in &manifest.entries {
        let fail = |problem| ManifestError::Inconsistent { path: entry.path.display(), problem };
        if last.is_some_and(|last| *last >= entry.path) {
            return Err(fail("entries are not sorted"));
        }
        last = Some(&entry.path);
        match entry.path.parent() {
            None if entry.kind == EntryKind::Unsent && manifest.entries.len() == 1 => {}
            None if entry.kind != EntryKind::Directory => {
                return Err(fail("the root is no directory"));
            }
            Some(parent) => {
                let parent =
                    manifest.get(&parent).ok_or_else(|| fail("its directory is missing"))?;
                if parent.kind != EntryKind::Directory {
                    return Err(fail("its parent is no directory"));
                }
            }
            None => {}
        }
        if entry.mode & !0o7777 != 0 {
            return Err(fail("the mode has unknown bits"));
        }
        check_content(manifest, entry).map_err(fail)?;
    }
    Ok(())
}

fn check_content(manifest: &Manifest, entry: &Entry) -> Result<(), &'static str> {
    match &entry.kind {
        EntryKind::File { size_bytes, parts, .. } => {
            let mut sum: u64 = 0;
            for part in parts {
                let Some(pack) = manifest.packs.get(part.pack as usize) else {
                    return Err("a part names no pack");
                };
                let end = part.frame_offset.checked_add(part.frame_bytes);
                if part.frame_bytes > MAX_FRAME_BYTES
                    || part.size_bytes > MAX_FRAME_BYTES
                    || part.skip_bytes > MAX_FRAME_BYTES
                    || end.is_none_or(|end| end > pack.size_bytes)
                {
                    return Err("a part is out of bounds");
                }
                sum = sum.saturating_add(part.size_bytes);
            }
            if sum != *size_bytes {
                return Err("its parts do not add up to its size");
            }
        }
        EntryKind::Hardlink { target } => {
            let found = manifest.get(target).map(|entry| &entry.kind);
            if *target >= entry.path || !matches!(found, Some(EntryKind::File { .. })) {
                return Err("a hard link names no earlier file");
            }
        }
        EntryKind::Symlink { target } if target.is_empty() || target.len() >= 4096 => {
            return Err("a link has no usable target");
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::Digest;
    use common::tree::{Pack, Part};

    fn entry(path: &str, kind: EntryKind) -> Entry {
        let path = TreePath::new(path).unwrap();
        Entry { path, mode: 0o755, uid: 0, gid: 0, mtime_secs: 0, xattrs: Vec::new(), kind }
    }

    fn file(parts: Vec<Part>, size_bytes: u64) -> EntryKind {
        EntryKind::File { size_bytes, digest: Digest::of(b""), parts }
    }

    #[test]
    fn a_manifest_survives_a_round_trip() {
        let name = TreePath::new(vec![b'x', 0xff]).unwrap();
        let mut odd = entry("", file(Vec::new(), 0));
        odd.path = name;
        let manifest = Manifest {
            packs: vec![Pack { digest: Digest::of(b"p"), size_bytes: 10 }],
            entries: vec![entry("", EntryKind::Directory), odd],
        };
        assert_eq!(decode(&encode(&manifest).unwrap()).unwrap(), manifest);
        let nothing = Manifest::kept_back();
        assert_eq!(decode(&encode(&nothing).unwrap()).unwrap(), nothing);
    }

    #[test]
    fn inconsistent_manifests_are_refused() {
        let root = || entry("", EntryKind::Directory);
        let part = Part { pack: 0, frame_offset: 0, frame_bytes: 11, skip_bytes: 0, size_bytes: 1 };
        let cases = [
            vec![root(), entry("b", EntryKind::Fifo), entry("a", EntryKind::Fifo)],
            vec![root(), entry("a/b", EntryKind::Fifo)],
            vec![root(), entry("a", EntryKind::Fifo), entry("a/b", EntryKind::Fifo)],
            vec![entry("", EntryKind::Fifo)],
            vec![entry("", EntryKind::Unsent), entry("a", EntryKind::Unsent)],
            vec![root(), entry("a", file(vec![part], 1))],
            vec![root(), entry("a", file(Vec::new(), 1))],
            vec![root(), entry("a", EntryKind::Hardlink { target: TreePath::new("b").unwrap() })],
        ];
        for entries in cases {
            let packs = vec![Pack { digest: Digest::of(b"p"), size_bytes: 10 }];
            let bytes = encode(&Manifest { packs, entries: entries.clone() }).unwrap();
            assert!(decode(&bytes).is_err(), "{entries:?}");
        }
        assert!(decode(b"no manifest").is_err());
    }
}
