//! Where a farm on this machine lies, and how to reach it.

use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::exit::CliError;

/// Address and token of a farm on this machine, for the other commands. Removed when it stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The coordinator's address.
    pub(crate) server: String,
    /// A token for builds.
    pub(crate) token: String,
    /// The registry's address, if there is one.
    pub(crate) registry: Option<String>,
}

impl Place {
    fn path(directory: &Path) -> PathBuf {
        directory.join("farm.json")
    }

    /// The farm that runs with this data directory, if one does and this user may use it.
    pub(crate) fn read(directory: &Path) -> Option<Self> {
        // One that was killed has left the file, but not the lock.
        let lock = std::fs::File::open(directory.join("lock")).ok()?;
        if lock.try_lock_shared().is_ok() {
            return None;
        }
        let text = std::fs::read_to_string(Self::path(directory)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Tells the other commands. Whoever can read it can build here, so only the owner can.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), CliError> {
        let path = Self::path(directory);
        let text = serde_json::to_string_pretty(self).map_err(|e| CliError::file(&path, &e))?;
        write_private(&path, text.as_bytes()).map_err(|error| CliError::file(&path, &error))
    }

    /// Nobody can be reached here any more.
    pub(crate) fn remove(directory: &Path) {
        let _ = std::fs::remove_file(Self::path(directory));
    }
}

/// Writes a whole file that only its owner can read.
pub(super) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    io::Write::write_all(&mut file, content)?;
    file.sync_all()?;
    std::fs::rename(fresh, path)
}

/// `/var/lib/slipway` for root, else below the user's data directory.
pub(crate) fn default_directory() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/slipway");
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    data.unwrap_or_else(|| home().join(".local/share")).join("slipway")
}

/// Makes the data directory and takes it: two farms on one directory would ruin each other. The
/// lock goes with the file.
pub(super) fn take(directory: &Path) -> Result<std::fs::File, CliError> {
    let fail = |error: &dyn std::fmt::Display| CliError::file(directory, error);
    std::fs::create_dir_all(directory).map_err(|error| fail(&error))?;
    // Postgres runs as another user and has to pass through.
    let open = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(directory, open).map_err(|error| fail(&error))?;
    let lock = std::fs::File::create(directory.join("lock")).map_err(|error| fail(&error))?;
    if lock.try_lock().is_err() {
        let running = Place::read(directory);
        let at = running.map(|place| format!(" at {}", place.server)).unwrap_or_default();
        return Err(CliError::Usage {
            message: format!("a farm runs on {} already{at}", directory.display()),
            hint: Some("stop it first, or give this one a --data-dir of its own".to_owned()),
        });
    }
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_private_and_gone_after_its_removal() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place { server: "http://x".into(), token: "secret".into(), registry: None };
        let running = take(directory.path()).unwrap();
        place.write(directory.path()).unwrap();
        place.write(directory.path()).unwrap();
        let mode = std::fs::metadata(Place::path(directory.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(Place::read(directory.path()), Some(place.clone()));
        drop(running);
        assert_eq!(Place::read(directory.path()), None, "nothing runs there");
        let _running = take(directory.path()).unwrap();
        assert_eq!(Place::read(directory.path()), Some(place));
        Place::remove(directory.path());
        assert_eq!(Place::read(directory.path()), None);
    }

    #[test]
    fn a_directory_is_taken_once() {
        let directory = tempfile::tempdir().unwrap();
        let held = take(directory.path()).unwrap();
        let error = take(directory.path()).unwrap_err();
        assert!(error.to_string().contains("a farm runs on"), "{error}");
        drop(held);
        take(directory.path()).unwrap();
    }
}
