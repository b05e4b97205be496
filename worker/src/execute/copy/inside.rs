//! Opening things inside a tree, whatever links the tree holds.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat, openat2, readlinkat, statat};

use super::glob::os_name;

/// Links that one path may lead through; the kernel's own limit is 40.
const MAX_LINKS: usize = 40;

/// A directory that is the whole world for the paths looked up in it.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens a directory as a root.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { fd: OwnedFd::from(File::open(path)?) })
    }

    /// An open directory as a root.
    pub fn from_directory(directory: &OwnedFd) -> io::Result<Self> {
        Ok(Self { fd: directory.try_clone()? })
    }

    /// Opens what `path` names, all links followed inside the root.
    pub fn open_with(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b".".as_slice() } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.fd, os_name(path), flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// Opens a directory for reading.
    pub fn open_directory(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        self.open_with(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// What `path` names, its last component taken as it is.
    pub fn stat_link(&self, path: &[u8]) -> rustix::io::Result<Stat> {
        let (parent, name) = split(path);
        let directory = self.open_with(parent, OFlags::PATH | OFlags::DIRECTORY)?;
        if name.is_empty() {
            return rustix::fs::fstat(&directory);
        }
        statat(&directory, os_name(name), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Whether there is anything at `path`, a dangling link included.
    pub fn exists(&self, path: &[u8]) -> bool {
        self.stat_link(path).is_ok()
    }

    /// The path without links that `path` leads to, relative to the root. Components that do not
    /// exist are kept as they are, so this also tells where a dangling link would create.
    pub fn resolve(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut todo: Vec<Vec<u8>> = components(path);
        todo.reverse();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == b".." {
                done.pop();
                continue;
            }
            done.push(part);
            let here = done.join(&b'/');
            let Some(target) = self.link_target(&here) else {
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(rustix::io::Errno::LOOP.into());
            }
            done.pop();
            if target.first() == Some(&b'/') {
                done.clear();
            }
            todo.extend(components(&target).into_iter().rev());
        }
        Ok(done.join(&b'/'))
    }

    /// The target of the link at `path`, if it is one.
    pub fn link_target(&self, path: &[u8]) -> Option<Vec<u8>> {
        let (parent, name) = split(path);
        let directory = self.open_with(parent, OFlags::PATH | OFlags::DIRECTORY).ok()?;
        Some(readlinkat(&directory, os_name(name), Vec::new()).ok()?.into_bytes())
    }
}

/// Parent and last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// The components of a path without empty ones and `.`.
pub(super) fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_resolved_inside_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        std::fs::create_dir_all(at.join("real/dir")).unwrap();
        symlink("/real", at.join("absolute")).unwrap();
        symlink("../../../real/dir", at.join("real/climbing")).unwrap();
        symlink("nowhere/file", at.join("dangling")).unwrap();
        symlink("loop", at.join("loop")).unwrap();
        let root = Root::open(at).unwrap();
        let check = |path: &str, expected: &str| {
            let resolved = root.resolve(path.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(resolved).unwrap(), expected, "{path}");
        };
        check("/absolute/dir", "real/dir");
        check("real/climbing/x", "real/dir/x");
        check("dangling", "nowhere/file");
        check("../../etc/passwd", "etc/passwd");
        check("/", "");
        assert!(root.resolve(b"loop").is_err());
        assert!(root.open_directory(b"../../../..").is_ok());
        assert!(root.open_with(b"../../etc/passwd", OFlags::PATH).is_err());
    }
}
