//! What a container sees besides its root file system.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::stubs::StubKind;

/// One mount of a RUN, ready to be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerMount {
    /// Where: absolute and clean.
    pub target: String,
    /// What.
    pub source: MountSource,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A directory of the worker.
    Directory {
        /// Which.
        path: PathBuf,
        /// Whether the command may only read.
        read_only: bool,
    },
    /// A file of the worker.
    File {
        /// Which.
        path: PathBuf,
        /// Whether the command may only read.
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// Its size; without, the kernel's default.
        size_bytes: Option<u64>,
    },
}

impl ContainerMount {
    pub(super) fn stub(&self) -> StubKind {
        match self.source {
            MountSource::File { .. } => StubKind::File,
            MountSource::Directory { .. } | MountSource::Tmpfs { .. } => StubKind::Directory,
        }
    }

    pub(super) fn config(&self) -> Value {
        let access = |read_only: bool| if read_only { "ro" } else { "rw" };
        match &self.source {
            MountSource::Directory { path, read_only } => json!({
                "destination": self.target, "type": "bind", "source": path,
                "options": ["rbind", access(*read_only), "nosuid", "nodev"],
            }),
            MountSource::File { path, read_only } => json!({
                "destination": self.target, "type": "bind", "source": path,
                "options": ["bind", access(*read_only), "nosuid", "nodev"],
            }),
            MountSource::Tmpfs { size_bytes } => {
                let mut options = vec!["nosuid".to_owned(), "nodev".to_owned()];
                options.extend(size_bytes.map(|bytes| format!("size={bytes}")));
                json!({
                    "destination": self.target, "type": "tmpfs", "source": "tmpfs",
                    "options": options,
                })
            }
        }
    }
}

/// In the order in which they have to be mounted: what lies below another one comes after it. Of
/// two on one target the later one counts, as in BuildKit.
pub(super) fn in_order(mounts: &[ContainerMount]) -> Vec<ContainerMount> {
    let mut ordered: Vec<ContainerMount> = Vec::new();
    for mount in mounts {
        ordered.retain(|other| other.target != mount.target);
        ordered.push(mount.clone());
    }
    let depth = |mount: &ContainerMount| mount.target.split('/').count();
    ordered.sort_by_key(depth);
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_mounts_win_and_inner_ones_come_after_outer_ones() {
        let tmpfs = |target: &str, size: u64| ContainerMount {
            target: target.to_owned(),
            source: MountSource::Tmpfs { size_bytes: Some(size) },
        };
        let given = [tmpfs("/a/b", 1), tmpfs("/a", 2), tmpfs("/a/b", 3), tmpfs("/c", 4)];
        let expected = [tmpfs("/a", 2), tmpfs("/c", 4), tmpfs("/a/b", 3)];
        assert_eq!(in_order(&given), expected);
    }
}
