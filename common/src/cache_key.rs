//! Keys: what makes a cache hit.
//!
//! A *definition key* is known at plan time: the parent's key, the canonical operation, and for
//! each input its digest. Every part is kept with its name, so that "why did this run?" is a
//! difference between two lists. A *content key* is known once the producers have ended: it names what
//! is read of other stages by what it holds, not by how it was made. Changing the encoding below, or what a part means, makes every
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

/// The content key of a step with these parts, which follows a step with the content key `parent`.
/// For each stage that it reads, `inputs` has the stage's definition key and what the files hold. With
/// no inputs and the parent that the parts name it is the definition key.
pub fn content_key(parent: &Digest, parts: &[KeyPart], inputs: &[(Digest, String)]) -> Digest {
    let mut key = KeyBuilder::new();
    for part in parts {
        if part.name == PARENT {
            key.part(PARENT, parent.to_string());
            continue;
        }
        let mut value = part.value.clone();
        for (stage, content) in inputs {
            value = value.replace(&stage_identity(stage), &format!("content {content}"));
        }
        key.part(part.name.clone(), value);
    }
    key.finish().0
}

/// Name of the part that covers all steps before.
pub const PARENT: &str = "parent";

/// How the parts of a definition key name a stage that the step reads.
pub fn stage_identity(key: &Digest) -> String {
    format!("stage {key}")
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
    fn a_content_key_differs_only_where_something_is_read() {
        let (parent, stage) = (Digest::of(b"parent"), Digest::of(b"stage"));
        let parts = |stage: &Digest| {
            let mut key = KeyBuilder::new();
            key.part(PARENT, parent.to_string()).part("from", stage_identity(stage));
            key.finish()
        };
        let (definition, own) = parts(&stage);
        assert_eq!(content_key(&parent, &own, &[]), definition);
        let read = |stage: Digest, text: &str| [(stage, text.to_owned())];
        let content = content_key(&parent, &own, &read(stage, "x"));
        assert_ne!(content, definition);
        // Another stage that made the same.
        let other = Digest::of(b"other");
        let (_, others) = parts(&other);
        assert_eq!(content_key(&parent, &others, &read(other, "x")), content);
        assert_ne!(content_key(&parent, &others, &read(other, "y")), content);
        assert_ne!(content_key(&other, &own, &read(stage, "x")), content);
    }

    #[test]
    fn moving_a_border_between_parts_changes_the_key() {
        assert_ne!(key(&[("ab", "c")]), key(&[("a", "bc")]));
        assert_ne!(key(&[("a", "b"), ("c", "d")]), key(&[("a", "bcd")]));
        assert_ne!(key(&[("a", "b"), ("c", "d")]), key(&[("c", "d"), ("a", "b")]));
        assert_eq!(key(&[("a", "b")]), key(&[("a", "b")]));
    }
}
