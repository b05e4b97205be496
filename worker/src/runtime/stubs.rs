//! Mount points that a container needs and the root file system lacks.
//!
//! They are made before the command and removed after it when nothing was put there, with the times
//! of their parents as they were.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, futimens, mkdirat, openat,
    openat2, statat, unlinkat,
};

use crate::execute::copy::Root;

/// What a mount point has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StubKind {
    /// A directory.
    Directory,
    /// An empty file.
    File,
}

/// Mount points that were made.
#[derive(Debug)]
pub(super) struct Stubs {
    root: OwnedFd,
    /// In order of creation, relative to the root.
    made: Vec<(PathBuf, StubKind)>,
}

impl Stubs {
    /// Makes what is missing of `targets`: absolute paths in the root file system at `rootfs`.
    pub(super) fn make(rootfs: &Path, targets: &[(&str, StubKind)]) -> io::Result<Self> {
        let root = OwnedFd::from(File::open(rootfs)?);
        // Runtimes follow links to where the mount point is, dangling ones too: so does this.
        let links = Root::from_directory(&root)?;
        let mut stubs = Self { root, made: Vec::new() };
        for (target, kind) in targets {
            let target = links.resolve(target.as_bytes())?;
            stubs.make_one(Path::new(OsStr::from_bytes(&target)), *kind)?;
        }
        Ok(stubs)
    }

    fn make_one(&mut self, target: &Path, kind: StubKind) -> io::Result<()> {
        let mut parent = PathBuf::from(".");
        let components: Vec<_> = target.components().collect();
        for (position, component) in components.iter().enumerate() {
            let path = parent.join(component);
            let last = position + 1 == components.len();
            if open_inside(&self.root, &path, OFlags::PATH).is_err() {
                let wanted = if last { kind } else { StubKind::Directory };
                let directory =
                    open_inside(&self.root, &parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
                let times = times_of(&directory)?;
                let name = component.as_os_str();
                match wanted {
                    StubKind::Directory => mkdirat(&directory, name, Mode::from_raw_mode(0o755))?,
                    StubKind::File => {
                        let flags =
                            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                        openat(&directory, name, flags, Mode::from_raw_mode(0o644))?;
                    }
                }
                futimens(&directory, &times)?;
                self.made.push((path.clone(), wanted));
            }
            parent = path;
        }
        Ok(())
    }

    /// Removes those that are still as they were made. What the command put something into stays.
    pub(super) fn remove(self) -> io::Result<()> {
        for (path, kind) in self.made.iter().rev() {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                continue;
            };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let Ok(directory) = open_inside(&self.root, parent, flags) else {
                continue;
            };
            let Ok(stat) = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let times = times_of(&directory)?;
            let removed = match (kind, FileType::from_raw_mode(stat.st_mode)) {
                (StubKind::Directory, FileType::Directory) => {
                    unlinkat(&directory, name, AtFlags::REMOVEDIR).is_ok()
                }
                (StubKind::File, FileType::RegularFile) if stat.st_size == 0 => {
                    unlinkat(&directory, name, AtFlags::empty()).is_ok()
                }
                _ => false,
            };
            if removed {
                futimens(&directory, &times)?;
            }
        }
        Ok(())
    }
}

fn open_inside(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn times_of(directory: &impl AsFd) -> io::Result<Timestamps> {
    let stat = rustix::fs::fstat(directory)?;
    let nanos = |value: u64| i64::try_from(value).unwrap_or(0);
    Ok(Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: nanos(stat.st_atime_nsec) },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos(stat.st_mtime_nsec) },
    })
}

/// Writes a file that is bound into a container, outside of any root file system.
pub(super) fn write_bound_file(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    const TARGETS: [(&str, StubKind); 3] = [
        ("/proc", StubKind::Directory),
        ("/etc/hosts", StubKind::File),
        ("/dev/pipes/x", StubKind::File),
    ];

    #[test]
    fn an_untouched_root_is_left_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let before = fs::metadata(root.path()).unwrap();
        let stubs = Stubs::make(root.path(), &TARGETS).unwrap();
        assert!(root.path().join("dev/pipes/x").is_file());
        stubs.remove().unwrap();
        let after = fs::metadata(root.path()).unwrap();
        assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()));
        let names: Vec<_> =
            fs::read_dir(root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["etc"]);
        assert_eq!(fs::read_dir(root.path().join("etc")).unwrap().count(), 0);
    }

    #[test]
    fn what_the_command_filled_stays() {
        let root = tempfile::tempdir().unwrap();
        let stubs = Stubs::make(root.path(), &TARGETS).unwrap();
        fs::write(root.path().join("dev/kept"), "x").unwrap();
        fs::write(root.path().join("etc/hosts"), "mine").unwrap();
        stubs.remove().unwrap();
        assert!(root.path().join("dev/kept").exists());
        assert!(root.path().join("etc/hosts").exists());
        assert!(!root.path().join("dev/pipes").exists());
        assert!(!root.path().join("proc").exists());
    }

    #[test]
    fn a_link_to_outside_makes_nothing_there() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("etc")).unwrap();
        // What is missing is made inside the root, where the link leads from there.
        let stubs = Stubs::make(root.path(), &[("/etc/hosts", StubKind::File)]).unwrap();
        let inside = outside.path().strip_prefix("/").unwrap().join("hosts");
        assert!(root.path().join(inside).is_file());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        stubs.remove().unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
