//! Mounts of a process that died without unmounting.
//!
//! A worker mounts in a mount namespace of its own, which dies with it. Where that is not allowed
//! the mounts of a killed worker stay, and the next one on the same data directory removes them.

use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

/// Unmounts everything that is mounted below `directory`, deepest first. Returns how many mounts
/// there were.
pub fn unmount_below(directory: &Path) -> io::Result<usize> {
    let directory = match directory.canonicalize() {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let table = std::fs::read("/proc/self/mountinfo")?;
    let mut points: Vec<PathBuf> = table
        .split(|byte| *byte == b'\n')
        .filter_map(mount_point)
        .filter(|point| point.starts_with(&directory) && *point != directory)
        .collect();
    points.sort_unstable_by(|a, b| b.cmp(a));
    for point in &points {
        unmount(point, UnmountFlags::DETACH)?;
    }
    Ok(points.len())
}

/// The fifth field of a line of `mountinfo` (proc(5)), in which blanks and backslashes stand as
/// three octal digits.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|byte| *byte == b' ').nth(4)?;
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = || {
            let digits = std::str::from_utf8(after.get(..3)?).ok()?;
            u8::from_str_radix(digits, 8).ok()
        };
        if let (b'\\', Some(value)) = (byte, octal()) {
            path.push(value);
            rest = &after[3..];
        } else {
            path.push(byte);
            rest = after;
        }
    }
    Some(PathBuf::from(std::ffi::OsString::from_vec(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_blanks_in_mount_points_are_read() {
        let line = b"36 35 98:0 /mnt1 /mnt\\0402\\134x rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line), Some(PathBuf::from("/mnt 2\\x")));
        assert_eq!(mount_point(b""), None);
    }

    #[test]
    fn mounts_of_a_dead_process_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().join("a b");
        std::fs::create_dir(&at).unwrap();
        std::mem::forget(super::super::mount_readonly(&[], &at).unwrap());
        assert_eq!(unmount_below(root.path()).unwrap(), 1);
        assert_eq!(unmount_below(root.path()).unwrap(), 0);
    }
}
