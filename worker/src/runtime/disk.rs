//! How much disk a command may use.
//!
//! There are no quotas on an overlay, so its files are counted while it runs. That is kept cheap:
//! four times a second the file system is asked how much is free, and only when so much has gone
//! that the command might have used its share are its files walked. What other commands write
//! counts against that estimate, never against the limit.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat, statvfs};

/// Pause between two looks at the free space.
const PAUSE: Duration = Duration::from_millis(250);
/// Files are walked at least this often: what others remove can hide what a command writes.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Walking takes at most one part in so many of the time.
const WALK_SHARE: u32 = 10;
/// Directories below directories that are walked; what lies deeper is seen by the free space alone.
const MAX_DEPTH: usize = 400;

/// Why a command was ended for the sake of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskExcess {
    /// It wrote more than its share.
    Limit {
        /// What it had written, in bytes.
        written: u64,
    },
    /// The disk is nearly full, and this command filled most of what was free.
    Filled {
        /// What it had written, in bytes.
        written: u64,
    },
    /// The disk is nearly full, and others have filled it.
    Full,
}

/// Watches the directories that a command's changes go to.
#[derive(Debug, Clone)]
pub(super) struct DiskWatch {
    directories: Vec<PathBuf>,
    limit: u64,
    floor: u64,
    free_at_start: u64,
}

impl DiskWatch {
    /// A watch of `directories`, which are on one file system: they may hold `limit` bytes (0: any
    /// number), and `floor` bytes have to stay free.
    pub(super) fn new(directories: &[PathBuf], limit: u64, floor: u64) -> Self {
        let directories = directories.to_vec();
        let mut watch = Self { directories, limit, floor, free_at_start: 0 };
        watch.free_at_start = watch.free().unwrap_or(0);
        watch
    }

    /// Waits until there is too much. Does not end where nothing is to be watched.
    pub(super) async fn exceeded(&self) -> DiskExcess {
        let mut measured = Measured::default();
        loop {
            tokio::time::sleep(PAUSE).await;
            let Some(free) = self.free() else { continue };
            let is_full = free < self.floor;
            let grown = measured.free.unwrap_or(self.free_at_start).saturating_sub(free);
            let may_be_over = self.limit > 0 && measured.bytes.saturating_add(grown) > self.limit;
            let is_old = self.limit > 0 && measured.age() > LONGEST_PAUSE;
            if !is_full && !((may_be_over || is_old) && measured.may_walk_again()) {
                continue;
            }
            let (watch, begun) = (self.clone(), Instant::now());
            let Ok(bytes) = tokio::task::spawn_blocking(move || watch.walk()).await else {
                continue;
            };
            measured = Measured { bytes, free: Some(free), walked: begun, took: begun.elapsed() };
            if self.limit > 0 && bytes > self.limit {
                return DiskExcess::Limit { written: bytes };
            }
            if is_full {
                return self.blame(bytes);
            }
        }
    }

    fn blame(&self, written: u64) -> DiskExcess {
        let was_there = self.free_at_start.saturating_sub(self.floor);
        if was_there > 0 && written >= was_there / 2 {
            DiskExcess::Filled { written }
        } else {
            DiskExcess::Full
        }
    }

    /// Bytes that are free on the file system of the directories.
    fn free(&self) -> Option<u64> {
        let found = statvfs(self.directories.first()?).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn walk(&self) -> u64 {
        let mut walk = Walk { bytes: 0, limit: self.limit, seen: HashSet::new() };
        for directory in &self.directories {
            // What vanishes meanwhile is not there any more.
            let _ = walk.root(directory);
        }
        walk.bytes
    }
}

struct Measured {
    bytes: u64,
    free: Option<u64>,
    walked: Instant,
    took: Duration,
}

impl Default for Measured {
    fn default() -> Self {
        Self { bytes: 0, free: None, walked: Instant::now(), took: Duration::ZERO }
    }
}

impl Measured {
    fn age(&self) -> Duration {
        self.walked.elapsed()
    }

    fn may_walk_again(&self) -> bool {
        self.age() >= self.took * WALK_SHARE
    }
}

/// Adds up what files take on the disk. The tree changes meanwhile, and whoever changes it may mean
/// harm: directories are opened one below the other, never through a link or into another file
/// system.
struct Walk {
    bytes: u64,
    limit: u64,
    seen: HashSet<u64>,
}

impl Walk {
    fn root(&mut self, path: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        let device = fstat(&directory)?.st_dev;
        self.directory(&directory, device, 0)
    }

    fn directory(&mut self, directory: &OwnedFd, device: u64, depth: usize) -> io::Result<()> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if stat.st_dev != device || (stat.st_nlink > 1 && !self.is_new(&stat)) {
                continue;
            }
            let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
            self.bytes = self.bytes.saturating_add(blocks.saturating_mul(512));
            if self.limit > 0 && self.bytes > self.limit {
                return Ok(());
            }
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_directory && depth < MAX_DEPTH {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Ok(child) = openat(directory, name, flags, Mode::empty()) {
                    let _ = self.directory(&child, device, depth + 1);
                }
            }
        }
        Ok(())
    }

    /// Whether a file with several names has not been counted yet.
    fn is_new(&mut self, stat: &rustix::fs::Stat) -> bool {
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        is_directory || self.seen.insert(stat.st_ino)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn filled(bytes: usize) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("d")).unwrap();
        fs::write(directory.path().join("d/f"), vec![1; bytes]).unwrap();
        directory
    }

    #[test]
    fn files_count_once_and_with_what_they_take() {
        let directory = filled(1 << 20);
        let at = |name: &str| directory.path().join(name);
        fs::hard_link(at("d/f"), at("twin")).unwrap();
        std::os::unix::fs::symlink("/usr", at("out")).unwrap();
        let sparse = fs::File::create(at("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let watch = DiskWatch::new(&[directory.path().to_owned()], 0, 0);
        let walked = watch.walk();
        assert!((1 << 20..(1 << 20) + (64 << 10)).contains(&walked), "{walked}");
    }

    #[tokio::test]
    async fn who_filled_the_disk_is_told_apart() {
        let directory = filled(2 << 20);
        let directories = [directory.path().to_owned()];
        let over = DiskWatch::new(&directories, 1 << 20, 0);
        let over = DiskWatch { free_at_start: u64::MAX, ..over };
        assert!(
            matches!(over.exceeded().await, DiskExcess::Limit { written } if written > 1 << 20)
        );
        let full = DiskWatch::new(&directories, 0, 1 << 60);
        assert_eq!(full.exceeded().await, DiskExcess::Full);
        let others = DiskWatch { free_at_start: u64::MAX, ..full.clone() };
        assert_eq!(others.exceeded().await, DiskExcess::Full);
        let own = DiskWatch { free_at_start: (1 << 60) + (1 << 20), ..full };
        assert!(matches!(own.exceeded().await, DiskExcess::Filled { .. }));
    }
}
