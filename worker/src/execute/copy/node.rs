//! Making one entry in an open directory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, Stat, Timespec, Timestamps, Uid, XattrFlags,
    chownat, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, futimens, linkat, mkdirat, mknodat,
    openat, readlinkat, renameat, statat, symlinkat, unlinkat, utimensat,
};

use super::glob::os_name;

/// Bytes of extended attributes that are copied of one file; the kernel's own limit of one value
/// is 64 KiB.
const MAX_XATTR_BYTES: usize = 64 * 1024;

/// What a new entry gets besides its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permission bits: `mode & 0o7777`.
    pub(super) mode: RawMode,
    pub(super) modified: Timespec,
}

impl Metadata {
    /// What `stat` says.
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            modified: Timespec {
                tv_sec: stat.st_mtime,
                tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
        }
    }

    fn times(&self) -> Timestamps {
        Timestamps { last_access: self.modified, last_modification: self.modified }
    }

    /// Gives an open file or directory its owner, mode and times. Owner first: a change of owner
    /// clears setuid, setgid and capabilities.
    pub(super) fn apply(&self, fd: impl AsFd) -> io::Result<()> {
        fchown(&fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        fchmod(&fd, Mode::from_raw_mode(self.mode))?;
        futimens(&fd, &self.times())?;
        Ok(())
    }

    fn apply_link(&self, directory: &OwnedFd, name: &[u8]) -> io::Result<()> {
        let (uid, gid) = (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
        chownat(directory, os_name(name), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        utimensat(directory, os_name(name), &self.times(), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }
}

/// Removes what is at `name` unless it is a directory; whether there is one now.
pub(super) fn clear(directory: &OwnedFd, name: &[u8]) -> io::Result<bool> {
    match statat(directory, os_name(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(true),
        Ok(_) => {
            unlinkat(directory, os_name(name), AtFlags::empty())?;
            Ok(false)
        }
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Moves a regular file to where nothing is, and gives it its metadata; whether that was possible.
/// One that has other names keeps them, so it must not change.
pub(super) fn take(
    from: &OwnedFd,
    from_name: &[u8],
    stat: &Stat,
    directory: &OwnedFd,
    name: &[u8],
    metadata: &Metadata,
) -> io::Result<bool> {
    let changes = *metadata != Metadata::of(stat);
    if changes && stat.st_nlink > 1 {
        return Ok(false);
    }
    match renameat(from, os_name(from_name), directory, os_name(name)) {
        Ok(()) => {}
        Err(rustix::io::Errno::XDEV) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    if changes {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(directory, os_name(name), flags, Mode::empty())?;
        let mut capability = vec![0; MAX_XATTR_BYTES];
        let length = fgetxattr(&file, "security.capability", capability.as_mut_slice());
        metadata.apply(&file)?;
        if let Ok(length) = length {
            set_capability(&file, &capability[..length])?;
        }
    }
    Ok(true)
}

/// Makes an empty regular file that was not there, open for writing.
pub(super) fn make_file(directory: &OwnedFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(directory, os_name(name), flags, Mode::from_raw_mode(0o600))?;
    Ok(File::from(fd))
}

/// Makes a directory that was not there and opens it.
pub(super) fn make_directory(directory: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    mkdirat(directory, os_name(name), Mode::from_raw_mode(0o700))?;
    open_child(directory, name)
}

/// Opens a child directory, not through a link.
pub(super) fn open_child(directory: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, os_name(name), flags, Mode::empty())?)
}

/// Makes a symbolic link.
pub(super) fn make_symlink(
    directory: &OwnedFd,
    name: &[u8],
    target: &[u8],
    metadata: &Metadata,
) -> io::Result<()> {
    symlinkat(os_name(target), directory, os_name(name))?;
    metadata.apply_link(directory, name)
}

/// Makes a fifo or device.
pub(super) fn make_special(
    directory: &OwnedFd,
    name: &[u8],
    kind: FileType,
    device: u64,
    metadata: &Metadata,
) -> io::Result<()> {
    mknodat(directory, os_name(name), kind, Mode::from_raw_mode(metadata.mode), device)?;
    // The umask may have taken bits away.
    let mode = Mode::from_raw_mode(metadata.mode);
    rustix::fs::chmodat(directory, os_name(name), mode, AtFlags::empty())?;
    metadata.apply_link(directory, name)
}

/// Gives an entry a second name.
pub(super) fn make_hardlink(
    from: &OwnedFd,
    from_name: &[u8],
    directory: &OwnedFd,
    name: &[u8],
) -> io::Result<()> {
    linkat(from, os_name(from_name), directory, os_name(name), AtFlags::empty())?;
    Ok(())
}

/// The target of a link.
pub(super) fn read_link(directory: &OwnedFd, name: &[u8]) -> io::Result<Vec<u8>> {
    Ok(readlinkat(directory, os_name(name), Vec::new())?.into_bytes())
}

/// Gives a program its capabilities, after its owner: a change of owner clears them.
pub(super) fn set_capability(file: impl AsFd, value: &[u8]) -> io::Result<()> {
    Ok(fsetxattr(&file, "security.capability", value, XattrFlags::empty())?)
}

/// Copies the extended attributes that a layer can hold. Attributes of the overlay itself and of
/// security modules of this host are none of the image's.
pub(super) fn copy_xattrs(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let mut names = vec![0; MAX_XATTR_BYTES];
    let length = match flistxattr(&from, names.as_mut_slice()) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let is_wanted = name == b"security.capability" || name.starts_with(b"user.");
        if !is_wanted || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0; MAX_XATTR_BYTES];
        let length = fgetxattr(&from, os_name(name), value.as_mut_slice())?;
        match fsetxattr(&to, os_name(name), &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
