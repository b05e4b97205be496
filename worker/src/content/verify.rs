//! Reading everything once more.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use common::Digest;
use layer::Compression;
use serde::{Deserialize, Serialize};

use super::ContentStore;
use super::entry::Kind;
use super::index::{Known, discard};
use super::measure;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Verified {
    /// Entries that are as they were.
    whole: u64,
    /// Layers that nothing is known of to compare with, as they are too new.
    unknown: u64,
    /// Entries that are not as they were.
    pub(super) damaged: Vec<Damaged>,
}

/// A damaged entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Damaged {
    name: String,
    problem: String,
    /// Where it was moved; none: it is in use.
    moved_to: Option<String>,
}

/// What one entry came to.
enum Finding {
    Whole,
    Unknown,
    Damaged(String),
}

impl ContentStore {
    /// Reads every layer, blob and manifest, and moves those that are damaged aside.
    pub(super) fn verify(&self) -> io::Result<Verified> {
        let mut verified = Verified::default();
        let mut all = self.index.known();
        all.sort_unstable_by_key(|known| known.entry);
        // What is in a cache is its commands' own affair.
        for known in all.iter().filter(|known| known.entry.kind != Kind::Cache) {
            let finding = match self.check(known) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) => Finding::Damaged(format!("cannot be read: {error}")),
                Ok(finding) => finding,
            };
            // It may have been evicted meanwhile.
            if !self.index.is_same(known) {
                continue;
            }
            match finding {
                Finding::Whole => verified.whole += 1,
                Finding::Unknown => verified.unknown += 1,
                Finding::Damaged(problem) => {
                    verified.damaged.push(self.move_aside(known, problem)?);
                }
            }
        }
        Ok(verified)
    }

    fn check(&self, known: &Known) -> io::Result<Finding> {
        let (entry, place) = (known.entry, known.entry.place(&self.root));
        if entry.kind != Kind::Layer {
            let found = measure::file_digest(&place)?;
            return Ok(compare(&entry.digest, &found));
        }
        let tree = self.tree_digest(&place)?;
        if let Some(expected) = &known.record.tree {
            return Ok(compare(expected, &tree));
        }
        // A layer that holds all of its archive packs to the same bytes again. One that was made
        // here may hold directories that its archive leaves out, and others pack in another order.
        let scratch = self.scratch()?;
        let out = scratch.path().join("layer");
        let packed = layer::pack_upper(&place, &[], &out, Compression::None);
        let packed = packed.map_err(io::Error::other)?;
        if packed.diff_id != entry.digest {
            return Ok(Finding::Unknown);
        }
        self.index.note(known, None, Some(tree));
        Ok(Finding::Whole)
    }

    fn move_aside(&self, known: &Known, problem: String) -> io::Result<Damaged> {
        let name = known.entry.to_string();
        let place = self.root.join("damaged").join(name.replace('/', "-"));
        discard(&place)?;
        let moved = self.index.move_out(&[known.entry], false, |_| place.clone())?;
        tracing::error!(entry = name, problem, "an entry of the store is damaged");
        let moved_to = (moved.entries > 0).then(|| place.display().to_string());
        Ok(Damaged { name, problem, moved_to })
    }

    pub(super) fn tree_digest(&self, place: &Path) -> io::Result<Digest> {
        measure::tree_digest(place, &self.is_stopping)
    }
}

fn compare(expected: &Digest, found: &Digest) -> Finding {
    if expected == found {
        return Finding::Whole;
    }
    Finding::Damaged(format!("its content has the digest {found}, expected {expected}"))
}

impl Verified {
    /// In words.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for Damaged { name, problem, moved_to } in &self.damaged {
            let place = match moved_to {
                Some(place) => format!("moved to {place}"),
                None => "in use, and so left where it is".to_owned(),
            };
            let _ = writeln!(text, "damaged: {name}: {problem}; {place}");
        }
        let (whole, damaged) = (self.whole, self.damaged.len());
        let _ = write!(text, "{whole} whole, {damaged} damaged");
        if self.unknown > 0 {
            let _ = write!(text, ", {} layers too new to be compared", self.unknown);
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn layer(store: &ContentStore, content: &str) -> Digest {
        let scratch = store.scratch().unwrap();
        let layer = scratch.path().join("layer");
        fs::create_dir_all(layer.join("d")).unwrap();
        fs::write(layer.join("d/f"), content).unwrap();
        let out = scratch.path().join("out");
        let packed = layer::pack_upper(&layer, &[], &out, Compression::Gzip).unwrap();
        store.commit_layer(&layer, &packed.diff_id, 0).unwrap();
        store.commit_blob(&out, &packed.blob).unwrap();
        packed.diff_id
    }

    /// Changes one byte and leaves the time as it was.
    fn flip(path: &Path) {
        let modified = fs::metadata(path).unwrap().modified().unwrap();
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
        fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
    }

    #[test]
    fn damaged_entries_are_found_and_moved_aside() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        let [one, two] = ["one", "two"].map(|content| layer(&store, content));
        let verified = store.verify().unwrap();
        assert_eq!((verified.whole, verified.unknown, verified.damaged.len()), (4, 0, 0));
        let place = |digest: &Digest| store.find_layer(digest).unwrap().path();
        flip(&place(&one).join("d/f"));
        let blob = fs::read_dir(root.path().join("blobs")).unwrap().next().unwrap().unwrap();
        flip(&blob.path());
        let pin = store.find_layer(&two).unwrap();
        flip(&pin.path().join("d/f"));
        let verified = store.verify().unwrap();
        assert_eq!((verified.whole, verified.damaged.len()), (1, 3), "{}", verified.text());
        assert!(store.find_layer(&one).is_none() && !blob.path().exists());
        assert!(pin.path().exists(), "it is in use");
        drop(pin);
        assert_eq!(store.verify().unwrap().damaged.len(), 1);
        assert_eq!(fs::read_dir(root.path().join("damaged")).unwrap().count(), 3);
        store.evict_all().unwrap();
        assert_eq!(fs::read_dir(root.path().join("damaged")).unwrap().count(), 0);
        assert!(store.index.candidates().is_empty());
    }

    #[test]
    fn a_layer_that_does_not_pack_to_its_own_name_is_unknown_until_it_was_measured() {
        let root = tempfile::tempdir().unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        let scratch = store.scratch().unwrap();
        let name = Digest::of(b"packed by somebody else");
        let pin = store.commit_layer(scratch.path(), &name, 0).unwrap();
        let place = pin.path();
        drop(pin);
        assert_eq!(store.verify().unwrap().unknown, 1);
        let known = store.index.known()[0];
        store.index.note(&known, None, Some(store.tree_digest(&place).unwrap()));
        assert_eq!(store.verify().unwrap().whole, 1);
        fs::write(place.join("new"), "").unwrap();
        assert_eq!(store.verify().unwrap().damaged.len(), 1);
    }
}
