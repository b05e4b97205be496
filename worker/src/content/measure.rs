//! Sizes and digests of what is on disk.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use common::Digest;
use common::digest::Hasher;

/// Attributes that a layer has: see crate `layer`.
const ATTRIBUTES: [&str; 2] = ["security.capability", "trusted.overlay.opaque"];

/// The space that a file or a directory with all below it takes. A file with several names, which may
/// be in several layers, counts in parts: all its names together are the whole. What vanishes meanwhile counts as nothing: caches change while they are measured.
pub(super) fn size(path: &Path) -> io::Result<u64> {
    let mut todo = vec![path.to_owned()];
    let mut bytes = 0;
    while let Some(path) = todo.pop() {
        // What lies too deep for a path is not counted: only a cache can have that.
        let gone = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename)
        };
        let found = match fs::symlink_metadata(&path) {
            Err(error) if gone(&error) => continue,
            found => found?,
        };
        let names = if found.is_dir() { 1 } else { found.nlink().max(1) };
        bytes += found.blocks() * 512 / names;
        if found.is_dir() {
            match fs::read_dir(&path) {
                Err(error) if gone(&error) => {}
                entries => {
                    for entry in entries? {
                        todo.push(entry?.path());
                    }
                }
            }
        }
    }
    Ok(bytes)
}

/// The digest of a file's bytes.
pub(super) fn file_digest(path: &Path) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finish())
}

/// A digest of everything that a layer says: names, types, owners, modes, times, attributes, links,
/// content. Changing what goes in makes `verify` find every older layer damaged.
///
/// Ends early, with an error, when `stop` is set.
pub(super) fn tree_digest(root: &Path, stop: &AtomicBool) -> io::Result<Digest> {
    let mut tree = Tree { hasher: Hasher::new(), names: HashMap::new(), stop };
    tree.add(root, b"")?;
    Ok(tree.hasher.finish())
}

struct Tree<'a> {
    hasher: Hasher,
    /// Files with several names: where the first one is.
    names: HashMap<(u64, u64), Vec<u8>>,
    stop: &'a AtomicBool,
}

impl Tree<'_> {
    fn add(&mut self, path: &Path, name: &[u8]) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let found = fs::symlink_metadata(path)?;
        self.part(name);
        self.metadata(&found);
        for attribute in ATTRIBUTES {
            self.part(&attribute_of(path, attribute)?);
        }
        if found.is_symlink() {
            self.part(fs::read_link(path)?.as_os_str().as_bytes());
        } else if found.is_file() {
            self.content(path, name, &found)?;
        } else if found.is_dir() {
            let mut names: Vec<_> = fs::read_dir(path)?
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<_>>()?;
            names.sort_unstable();
            self.part(&(names.len() as u64).to_le_bytes());
            for below in names {
                let full = [name, b"/", below.as_bytes()].concat();
                self.add(&path.join(&below), &full)?;
            }
        }
        Ok(())
    }

    fn metadata(&mut self, found: &Metadata) {
        for number in [found.mode(), found.uid(), found.gid()] {
            self.hasher.update(&number.to_le_bytes());
        }
        for number in [found.mtime(), found.mtime_nsec()] {
            self.hasher.update(&number.to_le_bytes());
        }
        self.hasher.update(&found.rdev().to_le_bytes());
    }

    fn content(&mut self, path: &Path, name: &[u8], found: &Metadata) -> io::Result<()> {
        if found.nlink() > 1 {
            let key = (found.dev(), found.ino());
            if let Some(first) = self.names.get(&key).cloned() {
                self.part(b"link");
                self.part(&first);
                return Ok(());
            }
            self.names.insert(key, name.to_vec());
        }
        self.part(b"file");
        // The length stands before the content, as it does before every part.
        self.hasher.update(&found.len().to_le_bytes());
        let copied = io::copy(&mut File::open(path)?, &mut self.hasher)?;
        if copied == found.len() {
            return Ok(());
        }
        Err(io::Error::other(format!("{} changes while it is read", path.display())))
    }

    fn part(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }
}

fn attribute_of(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    use rustix::io::Errno;
    let mut value = Vec::with_capacity(4096);
    match rustix::fs::lgetxattr(path, name, rustix::buffer::spare_capacity(&mut value)) {
        Ok(_) => Ok(value),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/f"), vec![7; 100_000]).unwrap();
        fs::hard_link(at("d/f"), at("d/g")).unwrap();
        symlink("f", at("d/l")).unwrap();
        root
    }

    #[test]
    fn a_file_with_two_names_counts_once() {
        let root = tree();
        let once = size(root.path()).unwrap();
        assert!((100_000..180_000).contains(&once), "{once}");
        // A third name, in another layer.
        let other = tempfile::tempdir().unwrap();
        fs::hard_link(root.path().join("d/f"), other.path().join("f")).unwrap();
        let both = size(root.path()).unwrap() + size(other.path()).unwrap();
        assert!(both < once + 20_000, "{once} {both}");
        fs::write(root.path().join("other"), vec![7; 100_000]).unwrap();
        assert!(size(root.path()).unwrap() + size(other.path()).unwrap() >= both + 100_000);
    }

    #[test]
    fn every_change_of_a_tree_changes_its_digest() {
        let root = tree();
        let digest = || tree_digest(root.path(), &AtomicBool::new(false)).unwrap();
        let mut seen = vec![digest()];
        let at = |name: &str| root.path().join(name);
        let mut changed = |what: &str| {
            assert!(!seen.contains(&digest()), "{what}");
            seen.push(digest());
        };
        let mode = fs::Permissions::from_mode(0o640);
        fs::set_permissions(at("d/f"), mode).unwrap();
        changed("the mode");
        std::os::unix::fs::chown(at("d/f"), Some(7), None).unwrap();
        changed("the owner");
        let file = File::options().write(true).open(at("d/f")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        changed("the time");
        let content = || std::os::unix::fs::FileExt::write_all_at(&file, b"x", 5).unwrap();
        content();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        changed("one byte");
        let none = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(at("d"), "trusted.overlay.opaque", b"y", none).unwrap();
        changed("an attribute");
        fs::rename(at("d/l"), at("d/m")).unwrap();
        changed("a name");
        assert_eq!(digest(), *seen.last().unwrap());
    }
}
