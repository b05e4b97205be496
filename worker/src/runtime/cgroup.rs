//! The cgroup around one container: memory limit, and what happened to it.
//!
//! The runtime makes its own cgroup *below* this one and removes it when the container ends, so
//! that only here the counters outlive the container. Works on cgroup v2, v1, and v1 with a v2 tree
//! beside it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the kernel's hierarchies are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// The cgroup that all of a worker's containers share, below each hierarchy's root.
const PARENT: &str = "slipway";

/// The cgroup of one container. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Cgroup {
    memory: PathBuf,
    id: String,
    unified: bool,
}

impl Cgroup {
    /// Makes the cgroup `id`, with at most `memory_bytes` (0: no limit).
    pub(super) fn make(id: &str, memory_bytes: u64) -> io::Result<Self> {
        let unified = Path::new(MOUNT).join("cgroup.controllers").exists();
        let memory = if unified {
            let parent = Path::new(MOUNT).join(PARENT);
            fs::create_dir_all(&parent)?;
            for directory in [Path::new(MOUNT), &parent] {
                enable_controllers(directory);
            }
            parent.join(id)
        } else {
            Path::new(MOUNT).join("memory").join(PARENT).join(id)
        };
        fs::create_dir_all(&memory)?;
        let cgroup = Self {
            memory,
            id: id.to_owned(),
            unified,
        };
        if unified {
            enable_controllers(&cgroup.memory);
        }
        if memory_bytes > 0 {
            let file = if unified {
                "memory.max"
            } else {
                "memory.limit_in_bytes"
            };
            fs::write(cgroup.memory.join(file), memory_bytes.to_string())?;
            // Swapping would make the limit meaningless; kernels without swap accounting lack it.
            let (swap, value) = if unified {
                ("memory.swap.max", "0".to_owned())
            } else {
                ("memory.memsw.limit_in_bytes", memory_bytes.to_string())
            };
            let swap = cgroup.memory.join(swap);
            if swap.exists() {
                fs::write(swap, value)?;
            }
        }
        Ok(cgroup)
    }

    /// The path to give to the runtime, below the hierarchies' roots.
    pub(super) fn container_path(&self) -> String {
        format!("/{PARENT}/{}/container", self.id)
    }

    /// Whether the memory limit was hit so that something was killed.
    pub(super) fn out_of_memory(&self) -> bool {
        if self.unified {
            return self.counter("memory.events", "oom_kill") > 0;
        }
        // On v1 the kill is counted where the victim was, in a cgroup that is gone by now; what
        // stays is that the limit was reached.
        self.counter("memory.oom_control", "oom_kill") > 0
            || self.number("memory.failcnt") > 0
            || self.number("memory.memsw.failcnt") > 0
    }

    /// The most memory that was in use at once, in bytes, where the kernel tells.
    pub(super) fn peak_memory_bytes(&self) -> Option<u64> {
        let file = if self.unified {
            "memory.peak"
        } else {
            "memory.max_usage_in_bytes"
        };
        Some(self.number(file)).filter(|bytes| *bytes > 0)
    }

    fn counter(&self, file: &str, name: &str) -> u64 {
        fs::read_to_string(self.memory.join(file))
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find(|(key, _)| *key == name)
            .and_then(|(_, value)| value.trim().parse().ok())
            .unwrap_or(0)
    }

    fn number(&self, file: &str) -> u64 {
        fs::read_to_string(self.memory.join(file))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for hierarchy in hierarchies(self.unified) {
            let parent = hierarchy.join(PARENT);
            let own = parent.join(&self.id);
            // Children first. An error means that it never was, or that somebody else uses it.
            for directory in [own.join("container"), own, parent] {
                let _ = fs::remove_dir(directory);
            }
        }
    }
}

/// Lets the children of a v2 cgroup have limits. A controller that the kernel lacks is no reason
/// to fail: the limit that needs it is.
fn enable_controllers(directory: &Path) {
    for controller in ["+memory", "+pids", "+cpu"] {
        let _ = fs::write(directory.join("cgroup.subtree_control"), controller);
    }
}

fn hierarchies(unified: bool) -> Vec<PathBuf> {
    if unified {
        return vec![PathBuf::from(MOUNT)];
    }
    let Ok(entries) = fs::read_dir(MOUNT) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_gone_when_dropped() {
        let id = format!("test-{}", uuid::Uuid::now_v7().simple());
        let cgroup = Cgroup::make(&id, 64 << 20).unwrap();
        let path = cgroup.memory.clone();
        assert!(path.is_dir());
        assert!(!cgroup.out_of_memory());
        drop(cgroup);
        assert!(!path.exists());
    }
}
