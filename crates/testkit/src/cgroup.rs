//! Cgroups that are left behind.

use std::path::Path;

/// Where cgroups are, and how many directories down those of a container can be.
const ROOT: &str = "/sys/fs/cgroup";
const DEPTH: u32 = 3;

/// How many cgroups have this name, in all hierarchies.
pub fn cgroups_named(name: &str) -> usize {
    below(Path::new(ROOT), name, DEPTH)
}

fn below(directory: &Path, name: &str, depth: u32) -> usize {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories
        .map(|entry| {
            let deeper = if depth == 0 { 0 } else { below(&entry.path(), name, depth - 1) };
            deeper + usize::from(entry.file_name() == name)
        })
        .sum()
}
