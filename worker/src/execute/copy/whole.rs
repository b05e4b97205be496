//! Directories that are moved with all that is below them: one call instead of one for each file.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType, Stat, renameat, statat};

use super::engine::{Copy, HardLinks};
use super::error::CopyError;
use super::glob::os_name;
use super::node::{self, Metadata};

/// A directory of the source.
pub(super) struct Moving<'a> {
    pub(super) from: &'a OwnedFd,
    pub(super) name: &'a [u8],
    /// The directory itself.
    pub(super) source: &'a OwnedFd,
    /// Its path.
    pub(super) path: &'a [u8],
}

/// What is below a directory.
#[derive(Default)]
struct Below {
    files: u64,
    content_bytes: u64,
    /// Files with several names, and where they are.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

impl Copy<'_> {
    /// Moves a directory to where nothing is, if everything below it stays as it is; whether that
    /// was so.
    pub(super) fn take_directory(
        &mut self,
        moving: &Moving<'_>,
        stat: &Stat,
        into: &OwnedFd,
        new_name: &[u8],
        links: &mut HardLinks,
    ) -> Result<bool, CopyError> {
        let shown = || String::from_utf8_lossy(moving.path).into_owned();
        let fail = |error: io::Error| CopyError::io(shown(), error);
        let mut below = Below::default();
        if !self.stays(stat) || !self.all_stays(moving.source, moving.path, &mut below)? {
            // What holds for one will hold for others: nobody looks again.
            self.moves_whole = false;
            return Ok(false);
        }
        match renameat(moving.from, os_name(moving.name), into, os_name(new_name)) {
            Ok(()) => {}
            Err(rustix::io::Errno::XDEV) => {
                self.moves_whole = false;
                return Ok(false);
            }
            Err(error) => return Err(fail(error.into())),
        }
        self.stats.files += below.files;
        self.stats.content_bytes += below.content_bytes;
        for (inode, path) in below.linked {
            self.moved.insert(inode);
            links.note(inode, &path);
        }
        Ok(true)
    }

    /// Whether a copy of something has the metadata that it has itself.
    fn stays(&self, stat: &Stat) -> bool {
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let found = Metadata::of(stat);
        self.rules.apply(found, is_directory) == found
    }

    fn all_stays(
        &self,
        directory: &OwnedFd,
        path: &[u8],
        below: &mut Below,
    ) -> Result<bool, CopyError> {
        let fail =
            |error: io::Error| CopyError::io(String::from_utf8_lossy(path).into_owned(), error);
        for entry in Dir::read_from(directory).map_err(|error| fail(error.into()))? {
            let entry = entry.map_err(|error| fail(error.into()))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let stat = statat(directory, os_name(name), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| fail(error.into()))?;
            if !self.stays(&stat) {
                return Ok(false);
            }
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let path = [path, b"/", name].concat();
                    let child = node::open_child(directory, name).map_err(fail)?;
                    if !self.all_stays(&child, &path, below)? {
                        return Ok(false);
                    }
                }
                FileType::RegularFile => {
                    if stat.st_nlink > 1 {
                        let inode = (stat.st_dev, stat.st_ino);
                        if self.moved.contains(&inode) {
                            return Ok(false);
                        }
                        if below.linked.contains_key(&inode) {
                            continue;
                        }
                        below.linked.insert(inode, [path, b"/", name].concat());
                    }
                    below.files += 1;
                    below.content_bytes += u64::try_from(stat.st_size).unwrap_or(0);
                }
                FileType::Symlink => {}
                // Some of them are copied as something else.
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::Path;

    use common::plan::{Chmod, CopyFrom, CopyOp};
    use rustix::fs::{CWD, Mode};

    use super::super::{CopyInputs, CopyStats, copy};

    /// What there is below a directory: kind and mode, size, time, content, and the first other name.
    type Tree = BTreeMap<String, (u32, u64, i64, Vec<u8>, String)>;

    fn tree(root: &Path) -> Tree {
        let mut found = Tree::new();
        let mut names = BTreeMap::new();
        let mut waiting = vec![root.to_owned()];
        while let Some(directory) = waiting.pop() {
            let entries = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
            let mut paths: Vec<_> = entries.collect();
            paths.sort();
            for path in paths {
                let metadata = fs::symlink_metadata(&path).unwrap();
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                let content = if metadata.is_file() {
                    fs::read(&path).unwrap()
                } else if metadata.is_symlink() {
                    fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
                } else {
                    Vec::new()
                };
                let size = if metadata.is_dir() { 0 } else { metadata.size() };
                let first = names.entry(metadata.ino()).or_insert(name.clone()).clone();
                found.insert(name, (metadata.mode(), size, metadata.mtime(), content, first));
                if metadata.is_dir() {
                    waiting.push(path);
                }
            }
        }
        found
    }

    /// Copies from a tree with nested directories, links of both kinds and odd modes; once by moving.
    fn both(op: &CopyOp, special: bool, existing: &[&str]) -> [(Tree, CopyStats, usize); 2] {
        [false, true].map(|may_move| {
            let place = tempfile::tempdir().unwrap();
            let (from, rootfs) = (place.path().join("rootfs/staging"), place.path().join("rootfs"));
            for path in ["src/a/deep/er", "src/b", "src/c/empty"] {
                fs::create_dir_all(from.join(path)).unwrap();
            }
            for path in ["src/top", "src/a/one", "src/a/deep/two", "src/a/deep/er/three", "src/b/y"]
            {
                fs::write(from.join(path), path).unwrap();
            }
            fs::hard_link(from.join("src/a/one"), from.join("src/a/deep/one-again")).unwrap();
            fs::hard_link(from.join("src/a/one"), from.join("src/b/one-too")).unwrap();
            symlink("../../nowhere", from.join("src/a/link")).unwrap();
            if special {
                let mode = Mode::from_raw_mode(0o644);
                let pipe = from.join("src/c/pipe");
                rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            }
            fs::set_permissions(from.join("src/a/deep"), fs::Permissions::from_mode(0o1777))
                .unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
            for path in ["src/a/one", "src/a/deep/er/three", "src/a/deep", "src/c", "src"] {
                fs::File::open(from.join(path)).unwrap().set_modified(time).unwrap();
            }
            for path in existing {
                fs::create_dir_all(rootfs.join(path)).unwrap();
            }
            let inputs = CopyInputs { source: Some(&from), may_move, ..CopyInputs::default() };
            let inode = |path: &Path| fs::metadata(path).map(|found| found.ino()).ok();
            let before = inode(&from.join("src/a/deep"));
            let stats = copy(op, inputs, &rootfs).unwrap();
            let whole = usize::from(before == inode(&rootfs.join("to/a/deep")));
            (tree(&rootfs.join("to")), stats, whole)
        })
    }

    #[test]
    fn a_directory_that_is_moved_whole_is_as_if_its_files_were_copied() {
        let plain = CopyOp::new(CopyFrom::Context, vec!["src".to_owned()], "/to/");
        let modes = CopyOp { chmod: Some(Chmod::Octal(0o600)), ..plain.clone() };
        let excludes = CopyOp { exclude: vec!["**/two".to_owned()], ..plain.clone() };
        let cases = [
            (&plain, false, &[][..], 1),
            (&plain, true, &[][..], 1),
            (&plain, false, &["to/a"][..], 1),
            (&plain, false, &["to/b"][..], 1),
            (&plain, false, &["to/a/deep"][..], 0),
            (&modes, false, &[][..], 0),
            (&excludes, false, &[][..], 0),
        ];
        for (op, special, existing, whole) in cases {
            let [(copied, slow, _), (moved, mut fast, is_whole)] = both(op, special, existing);
            assert_eq!(is_whole, whole, "{op:?} {existing:?}");
            fast.moved = None;
            let slow = CopyStats { moved: None, ..slow };
            assert_eq!((slow.content_bytes, slow.warnings), (fast.content_bytes, fast.warnings));
            assert_eq!(slow.files, fast.files, "{op:?} {existing:?}");
            for (name, entry) in &copied {
                let other = &moved[name];
                assert_eq!((&entry.3, &entry.4, entry.0), (&other.3, &other.4, other.0), "{name}");
                assert_eq!((entry.1, entry.2), (other.1, other.2), "{name}");
            }
            assert_eq!(copied.len(), moved.len());
        }
    }
}
