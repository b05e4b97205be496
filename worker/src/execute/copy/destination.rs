//! The destination side: directories that have to exist.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, mkdirat};

use super::error::CopyError;
use super::glob::os_name;
use super::inside::{Root, components};
use super::node::{Metadata, open_child};

/// Opens the directory at `path`, making what is missing of it. `path` is free of links, as
/// [`Root::resolve`] gives it. Existing directories keep what they are; new ones get `metadata`.
pub(super) fn ensure(root: &Root, path: &[u8], metadata: &Metadata) -> Result<OwnedFd, CopyError> {
    let shown = || format!("/{}", String::from_utf8_lossy(path));
    let mut fd = root
        .open_with(b"", OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(|error| CopyError::io(shown(), error))?;
    for part in components(path) {
        fd = match open_child(&fd, &part) {
            Ok(child) => child,
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOENT.raw_os_error()) => {
                let mode = Mode::from_raw_mode(0o700);
                mkdirat(&fd, os_name(&part), mode)
                    .map_err(|error| CopyError::io(shown(), error))?;
                let child =
                    open_child(&fd, &part).map_err(|error| CopyError::io(shown(), error))?;
                metadata.apply(&child).map_err(|error| CopyError::io(shown(), error))?;
                child
            }
            Err(error) if is_no_directory(&error) => {
                return Err(CopyError::Destination {
                    path: shown(),
                    problem: "a part of the path is no directory",
                });
            }
            Err(error) => return Err(CopyError::io(shown(), error)),
        };
    }
    Ok(fd)
}

/// `ENOTDIR` for files, `ELOOP` for a link where none is followed.
pub(super) fn is_no_directory(error: &std::io::Error) -> bool {
    let code = error.raw_os_error();
    [rustix::io::Errno::NOTDIR, rustix::io::Errno::LOOP]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}
