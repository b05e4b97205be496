//! The cgroup around one container: memory limit, and what happened to it.
//!
//! The runtime makes its own cgroup *below* this one and removes it when the container ends, so
//! that only here the counters outlive the container. Works on cgroup v2, v1, and v1 with a v2 tree
//! beside it.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the kernel's hierarchies are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// The cgroup that holds those of one worker's containers, in every hierarchy. Dropping it removes
/// it.
#[derive(Debug)]
pub(super) struct Parent {
    /// Where the hierarchies are mounted.
    mount: PathBuf,
    /// Its path below each of them.
    name: PathBuf,
    unified: bool,
}

impl Parent {
    /// The parent for the worker whose files are in `scratch`. The name depends on that path alone,
    /// so that what a killed worker left is found, and removed, by the next one.
    pub(super) fn make(scratch: &Path) -> io::Result<Self> {
        let own = if layer::in_user_namespace() { own_cgroup() } else { PathBuf::new() };
        Self::make_in(Path::new(MOUNT), &own, scratch)
    }

    /// The same, below the cgroup `within` of the hierarchies at `mount`.
    fn make_in(mount: &Path, within: &Path, scratch: &Path) -> io::Result<Self> {
        let scratch = scratch.canonicalize()?;
        let digest = common::Digest::of(scratch.as_os_str().as_encoded_bytes());
        let unified = mount.join("cgroup.controllers").exists();
        let name = within.join(format!("slipway-{}", digest.short()));
        let parent = Self { mount: mount.to_owned(), name, unified };
        parent.remove();
        let directory = parent.directory();
        fs::create_dir_all(&directory)?;
        if unified {
            let outer = mount.join(within);
            if enable_controllers(&outer).is_err() {
                // A cgroup that hands controllers down holds no process itself (kernel
                // documentation, `cgroup-v2.rst`, "No Internal Process Constraint"). Only the
                // true root is exempt: in a container, or in what was delegated, this worker and
                // its starter stand in the way.
                make_way(&outer);
                let _ = enable_controllers(&outer);
            }
            let _ = enable_controllers(&directory);
        }
        Ok(parent)
    }

    /// Where the memory limits are.
    fn directory(&self) -> PathBuf {
        let hierarchy = if self.unified { self.mount.clone() } else { self.mount.join("memory") };
        hierarchy.join(&self.name)
    }

    /// Removes it with all that is below and holds no process.
    fn remove(&self) {
        for hierarchy in self.hierarchies() {
            remove_tree(&hierarchy.join(&self.name));
        }
    }

    fn hierarchies(&self) -> Vec<PathBuf> {
        if self.unified {
            return vec![self.mount.clone()];
        }
        let Ok(entries) = fs::read_dir(&self.mount) else {
            return Vec::new();
        };
        entries.flatten().map(|entry| entry.path()).collect()
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The cgroup of one container. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Cgroup {
    parent: Arc<Parent>,
    memory: PathBuf,
    id: String,
    /// v1 only: counts how often the kernel had to kill for memory here or below.
    killings: Option<OwnedFd>,
}

impl Cgroup {
    /// Makes the cgroup `id`, with at most `memory_bytes` (0: no limit).
    pub(super) fn make(parent: &Arc<Parent>, id: &str, memory_bytes: u64) -> io::Result<Self> {
        let unified = parent.unified;
        let memory = parent.directory().join(id);
        fs::create_dir_all(&memory)?;
        let mut cgroup =
            Self { parent: Arc::clone(parent), memory, id: id.to_owned(), killings: None };
        if unified {
            let _ = enable_controllers(&cgroup.memory);
        }
        if memory_bytes > 0 {
            let file = if unified { "memory.max" } else { "memory.limit_in_bytes" };
            fs::write(cgroup.memory.join(file), memory_bytes.to_string())?;
            // Swapping would make the limit meaningless; kernels without swap accounting lack it.
            // On v1 swapping is turned off rather than limited: with a limit of memory and swap
            // together the kernel does not count that the limit was reached.
            let (swap, value) =
                if unified { ("memory.swap.max", "0") } else { ("memory.swappiness", "0") };
            match fs::write(cgroup.memory.join(swap), value) {
                Err(error) if is_missing(&error) => {}
                result => result?,
            }
            if !unified {
                cgroup.killings = Some(watch_killings(&cgroup.memory)?);
            }
        }
        Ok(cgroup)
    }

    /// The path to give to the runtime, below the hierarchies' roots.
    pub(super) fn container_path(&self) -> String {
        format!("/{}/{}/container", self.parent.name.display(), self.id)
    }

    /// Whether the memory limit was hit so that something was killed.
    pub(super) fn out_of_memory(&self) -> bool {
        if self.parent.unified {
            return self.counter("memory.events", "oom_kill") > 0;
        }
        // On v1 the kill is counted where the victim was, in a cgroup that is gone by now, and that
        // the limit was reached (`memory.failcnt`) is true of every command that fills the page
        // cache. The notification is exact.
        let mut count = [0; 8];
        self.killings.as_ref().is_some_and(|fd| rustix::io::read(fd, &mut count).is_ok())
    }

    /// The most memory that was in use at once, in bytes, where the kernel tells.
    pub(super) fn peak_memory_bytes(&self) -> Option<u64> {
        let file = if self.parent.unified { "memory.peak" } else { "memory.max_usage_in_bytes" };
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
        for hierarchy in self.parent.hierarchies() {
            remove_tree(&hierarchy.join(&self.parent.name).join(&self.id));
        }
    }
}

/// An eventfd that the kernel counts up when it kills for memory (kernel documentation,
/// `cgroup-v1/memory.rst`, "OOM Control").
fn watch_killings(memory: &Path) -> io::Result<OwnedFd> {
    use rustix::event::{EventfdFlags, eventfd};
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let control = fs::File::open(memory.join("memory.oom_control"))?;
    let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    fs::write(memory.join("cgroup.event_control"), line)?;
    Ok(event)
}

/// Removes a cgroup, children first. An error means that it never was, or that a process is left
/// in it, which the runtime has been told to kill.
fn remove_tree(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}

/// What the kernel says of a file that a cgroup lacks: nobody may make one there.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

/// Lets the children of a v2 cgroup have limits. A controller that the kernel lacks is no reason
/// to fail: the limit that needs it is. A cgroup that holds processes is.
fn enable_controllers(directory: &Path) -> io::Result<()> {
    for controller in ["+memory", "+pids", "+cpu"] {
        match fs::write(directory.join("cgroup.subtree_control"), controller) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Moves the processes of a v2 cgroup into a child of it.
fn make_way(directory: &Path) {
    let inner = directory.join("slipway-processes");
    let _ = fs::create_dir(&inner);
    let processes = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    for process in processes.lines() {
        // One that has ended meanwhile is out of the way too.
        let _ = fs::write(inner.join("cgroup.procs"), process);
    }
}

/// This process's cgroup in the v2 hierarchy, relative to its root.
fn own_cgroup() -> PathBuf {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = PathBuf::from(path.unwrap_or_default());
    // A worker that moved itself before finds itself in the child.
    match path.file_name() {
        Some(name) if name == "slipway-processes" => {
            path.parent().map(Path::to_owned).unwrap_or_default()
        }
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_gone_when_dropped() {
        let id = format!("test-{}", uuid::Uuid::now_v7().simple());
        let scratch = tempfile::tempdir().unwrap();
        let parent = Arc::new(Parent::make(scratch.path()).unwrap());
        let cgroup = Cgroup::make(&parent, &id, 64 << 20).unwrap();
        let path = cgroup.memory.clone();
        assert!(path.is_dir());
        assert!(!cgroup.out_of_memory());
        drop(cgroup);
        assert!(!path.exists());
        let directory = parent.directory();
        assert!(directory.is_dir());
        drop(parent);
        assert!(!directory.exists());
    }

    /// What a v2 hierarchy would be told, in a directory that stands for one.
    #[test]
    fn limits_and_counters_of_the_second_version() {
        let (mount, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(mount.path().join("cgroup.controllers"), "memory pids cpu").unwrap();
        let within = Path::new("user.slice");
        let parent = Arc::new(Parent::make_in(mount.path(), within, scratch.path()).unwrap());
        let cgroup = Cgroup::make(&parent, "c", 64 << 20).unwrap();
        let path = mount.path().join(cgroup.container_path().trim_start_matches('/'));
        let at = path.parent().unwrap();
        assert!(at.starts_with(mount.path().join("user.slice")) && at.ends_with("c"));
        let read = |name: &str| fs::read_to_string(at.join(name)).unwrap();
        assert_eq!(read("memory.max"), (64_u64 << 20).to_string());
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("cgroup.subtree_control"), "+cpu");
        assert!(mount.path().join("user.slice/cgroup.subtree_control").exists());
        assert!(!cgroup.out_of_memory());
        assert_eq!(cgroup.peak_memory_bytes(), None);
        fs::write(at.join("memory.events"), "low 0\noom 2\noom_kill 1\n").unwrap();
        fs::write(at.join("memory.peak"), "4096\n").unwrap();
        assert!(cgroup.out_of_memory());
        assert_eq!(cgroup.peak_memory_bytes(), Some(4096));
    }

    #[test]
    fn processes_make_way_for_the_cgroups_of_containers() {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("cgroup.procs"), "12\n").unwrap();
        make_way(outer.path());
        let moved = outer.path().join("slipway-processes/cgroup.procs");
        assert_eq!(fs::read_to_string(moved).unwrap(), "12");
    }
}
