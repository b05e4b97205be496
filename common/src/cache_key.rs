//! Keys: what makes a cache hit.
//!
//! A *definition key* is known at plan time: the parent's key, the canonical operation, and for
//! each input its digest. Every part is kept with its name, so that "why did this run?" is a
//! difference between two lists. Changing the encoding below, or what a part means, makes every
//! stored key worthless: raise [`KEY_VERSION`] when a change of the executor has to take effect.

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::digest::Hasher;

/// Version of the builder's semantics; part of every key.
pub const KEY_VERSION: &str = "slipway-key-1";

/// One named component of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPart {
    /// What it is, for people: `base`, `command`, `arg VERSION`, `file src/main.c`.
    pub name: String,
    /// What it contributed: a digest or a short text. Never a secret.
    pub value: String,
}

/// A key under construction.
#[derive(Debug, Clone, Default)]
pub struct KeyBuilder {
    parts: Vec<KeyPart>,
}

impl KeyBuilder {
    /// A key without parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part. Order counts.
    pub fn part(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.parts.push(KeyPart { name: name.into(), value: value.into() });
        self
    }

    /// The key and its parts.
    pub fn finish(self) -> (Digest, Vec<KeyPart>) {
        let mut hasher = Hasher::new();
        // Lengths before values: no two lists of parts have the same encoding.
        let mut field = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        field(KEY_VERSION);
        for part in &self.parts {
            field(&part.name);
            field(&part.value);
        }
        (hasher.finish(), self.parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[(&str, &str)]) -> Digest {
        let mut builder = KeyBuilder::new();
        for (name, value) in parts {
            builder.part(*name, *value);
        }
        builder.finish().0
    }

    #[test]
    fn moving_a_border_between_parts_changes_the_key() {
        assert_ne!(key(&[("ab", "c")]), key(&[("a", "bc")]));
        assert_ne!(key(&[("a", "b"), ("c", "d")]), key(&[("a", "bcd")]));
        assert_ne!(key(&[("a", "b"), ("c", "d")]), key(&[("c", "d"), ("a", "b")]));
        assert_eq!(key(&[("a", "b")]), key(&[("a", "b")]));
    }
}
