//! `--parents`: what is copied keeps its parent directories, from the root of the source or from
//! after the first `/./` of the pattern. A directory is copied as itself, not only what it holds.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, OFlags};

use super::destination::ensure;
use super::engine::{Copy, HardLinks};
use super::error::CopyError;
use super::inside::{Root, components, split};
use super::node::{self, Metadata};

/// The pattern without its pivot, and how many of its components stand before that.
pub(super) fn pivot(pattern: &str) -> (String, usize) {
    match pattern.split_once("/./") {
        Some((before, after)) => {
            let before = before.trim_matches('/');
            let count = components(before.as_bytes()).len();
            (format!("/{before}/{}", after.trim_start_matches('/')), count)
        }
        None => (pattern.to_owned(), 0),
    }
}

impl Copy<'_> {
    /// Copies one path with its parents behind the first `pivot` components.
    pub(super) fn with_parents(
        &mut self,
        source: &Root,
        path: &[u8],
        pivot: usize,
    ) -> Result<(), CopyError> {
        let shown = String::from_utf8_lossy(path).into_owned();
        let fail = |error: io::Error| CopyError::io(format!("/{shown}"), error);
        let parts = components(path);
        let (before, kept) = parts.split_at(pivot.min(parts.len()));
        let mut into = self.destination_directory()?;
        let mut here = before.to_vec();
        let Some((name, parents)) = kept.split_last() else {
            // The pivot itself: all that it holds.
            return self.one_source(source, path);
        };
        for parent in parents {
            here.push(parent.clone());
            into = self.parent(source, &here.join(&b'/'), &into, parent)?;
        }
        let (directory, _) = split(path);
        let from = source
            .open_with(directory, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|error| fail(error.into()))?;
        let stat = source.stat_link(path).map_err(|error| fail(error.into()))?;
        let mut links = HardLinks::new(&into, path).map_err(fail)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return self.directory(&from, name, &stat, &into, name, path, &mut links);
        }
        self.entry(&from, name, &stat, &into, name, path, &mut links)
    }

    /// A parent directory: one that is there stays as it is, a new one looks like its source.
    fn parent(
        &mut self,
        source: &Root,
        path: &[u8],
        into: &OwnedFd,
        name: &[u8],
    ) -> Result<OwnedFd, CopyError> {
        let shown = || format!("/{}", String::from_utf8_lossy(path));
        let fail = |error: io::Error| CopyError::io(shown(), error);
        if let Ok(there) = node::open_child(into, name) {
            return Ok(there);
        }
        let opened = source.open_directory(path).map_err(|error| fail(error.into()))?;
        let stat = rustix::fs::fstat(&opened).map_err(|error| fail(error.into()))?;
        // The time is that of the copy, as in BuildKit.
        let metadata = Metadata {
            modified: super::engine::now(),
            ..self.rules.apply(Metadata::of(&stat), true)
        };
        let root = Root::from_directory(into).map_err(fail)?;
        ensure(&root, name, &metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pivot_is_taken_out() {
        for (pattern, expected, count) in [
            ("/a/./b/c", "/a/b/c", 1),
            ("/a/b/./c", "/a/b/c", 2),
            ("/a/b", "/a/b", 0),
            ("/./a", "//a", 0),
        ] {
            assert_eq!(pivot(pattern), (expected.to_owned(), count), "{pattern}");
        }
    }
}
