//! Slices: exactly the files that another stage copies out of a stage.

use serde::{Deserialize, Serialize};

use super::StageIndex;
use crate::Digest;
use crate::digest::Hasher;

/// Which files of a stage's root file system one consumer reads.
///
/// Patterns are absolute, cleaned paths of the producer (`/go/bin/app`, `/out/*.so`), with the
/// wildcards of COPY, sorted and without duplicates. A directory means all below it. Whoever makes
/// the slice adds what is needed to reach the files by the same paths: parent directories and
/// every symbolic link on the way with its target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SliceSelector {
    patterns: Vec<String>,
}

impl SliceSelector {
    /// A selector of these patterns, in any order.
    pub fn new(mut patterns: Vec<String>) -> Self {
        patterns.sort_unstable();
        patterns.dedup();
        Self { patterns }
    }

    /// The patterns, sorted.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Name of the selector: with the producer's key it names the slice.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        for pattern in &self.patterns {
            hasher.update(&(pattern.len() as u64).to_le_bytes());
            hasher.update(pattern.as_bytes());
        }
        hasher.finish()
    }
}

/// One slice that the plan asks a stage for, and who reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Which files.
    pub selector: SliceSelector,
    /// The stages that read it.
    pub consumers: Vec<StageIndex>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_patterns_does_not_matter() {
        let one = SliceSelector::new(vec!["/b".into(), "/a".into(), "/b".into()]);
        let other = SliceSelector::new(vec!["/a".into(), "/b".into()]);
        assert_eq!(one.digest(), other.digest());
        assert_ne!(one.digest(), SliceSelector::new(vec!["/a/b".into()]).digest());
    }
}
