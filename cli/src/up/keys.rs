//! The keys of a farm, made once.

use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::place::write_private;
use crate::exit::CliError;

/// What signs tokens and what opens the object store, in hex.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    /// Signs tokens.
    pub(super) auth: String,
    /// Seals the secrets of builds; older directories lack it.
    #[serde(default)]
    pub(super) secrets: String,
    /// The object store's access key.
    pub(super) s3_access: String,
    /// The object store's secret key.
    pub(super) s3_secret: String,
}

impl Keys {
    /// Reads the keys of a data directory, made at the first time.
    pub(super) fn load(directory: &Path) -> Result<Self, CliError> {
        let path = directory.join("keys.json");
        let fail = |error: &dyn std::fmt::Display| CliError::file(&path, error);
        let random = |bytes: usize| random_hex(bytes).map_err(|error| fail(&error));
        let keys = match std::fs::read_to_string(&path) {
            Ok(text) => {
                let mut keys: Self = serde_json::from_str(&text).map_err(|error| fail(&error))?;
                if !keys.secrets.is_empty() {
                    return Ok(keys);
                }
                keys.secrets = random(32)?;
                keys
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self {
                auth: random(32)?,
                secrets: random(32)?,
                s3_access: random(10)?,
                s3_secret: random(32)?,
            },
            Err(error) => return Err(fail(&error)),
        };
        let text = serde_json::to_string_pretty(&keys).map_err(|error| fail(&error))?;
        write_private(&path, text.as_bytes()).map_err(|error| fail(&error))?;
        Ok(keys)
    }
}

fn random_hex(bytes: usize) -> std::io::Result<String> {
    let mut buffer = vec![0; bytes];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut buffer)?;
    Ok(hex::encode(buffer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let first = Keys::load(directory.path()).unwrap();
        assert_eq!(first.auth.len(), 64);
        assert_eq!(Keys::load(directory.path()).unwrap().auth, first.auth);
        // A directory from before there were secrets.
        let path = directory.path().join("keys.json");
        let mut old: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        old.as_object_mut().unwrap().remove("secrets");
        std::fs::write(&path, old.to_string()).unwrap();
        let added = Keys::load(directory.path()).unwrap().secrets;
        assert_eq!(added.len(), 64);
        assert_eq!(Keys::load(directory.path()).unwrap().secrets, added);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Keys::load(other.path()).unwrap().auth, first.auth);
    }
}
