//! What the store keeps, by name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use common::Digest;
use serde::{Deserialize, Serialize};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// A layer, unpacked.
    Layer,
    /// A layer, as it is pushed.
    Blob,
    /// An encoded tree.
    Manifest,
    /// A cache mount.
    Cache,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Layer, Self::Blob, Self::Manifest, Self::Cache];

    /// The directory of its entries.
    pub(crate) const fn directory(self) -> &'static str {
        match self {
            Self::Layer => "layers",
            Self::Blob => "blobs",
            Self::Manifest => "manifests",
            Self::Cache => "caches",
        }
    }
}

/// The name of an entry. As text it is the path in the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) digest: Digest,
    /// Which copy of a cache; 0 for everything else.
    pub(crate) number: u32,
}

/// Text that names no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names nothing of a store")]
pub(crate) struct InvalidEntry(String);

impl Entry {
    pub(crate) const fn new(kind: Kind, digest: Digest) -> Self {
        Self { kind, digest, number: 0 }
    }

    pub(crate) const fn cache(digest: Digest, number: u32) -> Self {
        Self { kind: Kind::Cache, digest, number }
    }

    /// Where it is, or would be.
    pub(crate) fn place(&self, root: &Path) -> PathBuf {
        root.join(self.to_string())
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.directory(), self.digest.hex())?;
        match self.kind {
            Kind::Cache => write!(f, "/{}/data", self.number),
            _ => Ok(()),
        }
    }
}

impl FromStr for Entry {
    type Err = InvalidEntry;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidEntry(text.chars().take(100).collect());
        let mut parts = text.split('/');
        let (directory, hex) = parts.next().zip(parts.next()).ok_or_else(invalid)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.directory() == directory);
        let kind = kind.ok_or_else(invalid)?;
        let digest = format!("sha256:{hex}").parse().map_err(|_| invalid())?;
        let number = match kind {
            Kind::Cache => {
                parts.next().and_then(|number| number.parse().ok()).ok_or_else(invalid)?
            }
            _ => 0,
        };
        let entry = Self { kind, digest, number };
        // One name has one spelling.
        if entry.to_string() == text { Ok(entry) } else { Err(invalid()) }
    }
}

impl TryFrom<String> for Entry {
    type Error = InvalidEntry;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Entry> for String {
    fn from(entry: Entry) -> Self {
        entry.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip_and_others_are_refused() {
        let digest = Digest::of(b"x");
        for entry in [Entry::new(Kind::Layer, digest), Entry::cache(digest, 7)] {
            assert_eq!(entry.to_string().parse(), Ok(entry));
        }
        let hex = digest.hex();
        for text in [
            String::new(),
            "layers".to_owned(),
            "layers/abc".to_owned(),
            "layers/../lock".to_owned(),
            format!("other/{hex}"),
            format!("layers/{hex}/0"),
            format!("caches/{hex}"),
            format!("caches/{hex}/07/data"),
            format!("caches/{hex}/7/data/more"),
        ] {
            assert!(text.parse::<Entry>().is_err(), "{text}");
        }
    }
}
