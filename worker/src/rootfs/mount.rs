//! Mounting a chain.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen, mount_bind_recursive, mount_change, mount_remount, move_mount, open_tree, unmount,
};

/// Layers that one overlay mount takes (kernel: `OVL_MAX_STACK`).
pub const MAX_LAYERS: usize = 500;

/// A mounted root file system. Dropping it unmounts.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
}

impl Mount {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Detached: a reader that still holds a file open keeps only that file, not the mount point.
        if let Err(error) = unmount(&self.path, UnmountFlags::DETACH) {
            tracing::error!(path = %self.path.display(), %error, "could not unmount a root file system");
        }
    }
}

/// Mounts memory at the existing directory `at`, for what must not reach a disk. Only its owner can
/// look into it.
pub fn mount_memory(at: &Path) -> io::Result<Mount> {
    let memory = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(memory.as_fd(), "mode", "0700")?;
    fsconfig_set_string(memory.as_fd(), "size", "16m")?;
    fsconfig_create(memory.as_fd())?;
    attach(&memory, MountAttrFlags::empty(), at)
}

/// Mounts an open directory, whatever its path leads to by now, at the existing directory `at`.
pub fn mount_directory(directory: &rustix::fd::OwnedFd, at: &Path) -> io::Result<Mount> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(directory.as_fd(), "", flags)?;
    place(&tree, at)
}

/// Mounts `lowers` (lowest first, may be empty) read-only at the existing directory `at`.
pub fn mount_readonly(lowers: &[PathBuf], at: &Path) -> io::Result<Mount> {
    match distinct(lowers)?.as_slice() {
        // An overlay needs two layers when it has no upper; one layer is bound as it is.
        [] => {
            let empty = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(empty.as_fd(), "mode", "0755")?;
            fsconfig_create(empty.as_fd())?;
            attach(&empty, MountAttrFlags::MOUNT_ATTR_RDONLY, at)
        }
        [only] => {
            mount_bind_recursive(*only, at)?;
            let mount = Mount { path: at.to_owned() };
            mount_remount(at, flags_of(only)? | MountFlags::BIND | MountFlags::RDONLY, "")?;
            mount_change(at, MountPropagationFlags::PRIVATE)?;
            Ok(mount)
        }
        lowers => {
            let overlay = open_overlay(lowers)?;
            fsconfig_create(overlay.as_fd())?;
            attach(&overlay, MountAttrFlags::MOUNT_ATTR_RDONLY, at)
        }
    }
}

/// Mounts `lowers` (lowest first, may be empty) at `at`, with changes going to `upper`. `upper` and
/// `work` are empty directories of one file system, the same as that of each other.
pub fn mount_writable(
    lowers: &[PathBuf],
    upper: &Path,
    work: &Path,
    at: &Path,
) -> io::Result<Mount> {
    // An overlay needs a lower layer: a stage FROM scratch gets an empty one, which lies in `work`
    // because that directory belongs to the mount anyway.
    if lowers.is_empty() {
        let empty = work.join("empty");
        let inner = work.join("work");
        std::fs::create_dir_all(&empty)?;
        std::fs::create_dir_all(&inner)?;
        return mount_writable(&[empty], upper, &inner, at);
    }
    let overlay = open_overlay(&distinct(lowers)?)?;
    fsconfig_set_string(overlay.as_fd(), "upperdir", upper)?;
    fsconfig_set_string(overlay.as_fd(), "workdir", work)?;
    fsconfig_create(overlay.as_fd())?;
    attach(&overlay, MountAttrFlags::empty(), at)
}

/// Each directory once, where it is highest. Steps that change the same, such as nothing, make the same
/// layer, and the kernel refuses to stack a directory twice. Lower down it shows nothing: all its
/// entries are covered by those of the same layer above.
fn distinct(lowers: &[PathBuf]) -> io::Result<Vec<&Path>> {
    use std::os::unix::fs::MetadataExt as _;
    let mut seen = HashSet::new();
    let mut kept = Vec::with_capacity(lowers.len());
    for lower in lowers.iter().rev() {
        let found = std::fs::metadata(lower)?;
        if seen.insert((found.dev(), found.ino())) {
            kept.push(lower.as_path());
        }
    }
    kept.reverse();
    Ok(kept)
}

fn open_overlay(lowers: &[&Path]) -> io::Result<rustix::fd::OwnedFd> {
    if lowers.len() > MAX_LAYERS {
        return Err(io::Error::other(format!(
            "{} layers are more than the kernel stacks ({MAX_LAYERS})",
            lowers.len()
        )));
    }
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(overlay.as_fd(), "source", "slipway")?;
    fsconfig_set_string(overlay.as_fd(), "metacopy", "off")?;
    fsconfig_set_string(overlay.as_fd(), "index", "off")?;
    if ::layer::in_user_namespace() {
        // There the attributes of the overlay are those that everybody may write, and redirections
        // are off: the option is refused.
        fsconfig_set_flag(overlay.as_fd(), "userxattr")?;
    } else {
        fsconfig_set_string(overlay.as_fd(), "redirect_dir", "off")?;
    }
    // The kernel wants the highest layer first. `lowerdir+` (Linux 6.8) takes one path a call, so
    // neither the length of an option string nor a colon in a path is a limit.
    for lower in lowers.iter().rev().copied() {
        fsconfig_set_string(overlay.as_fd(), "lowerdir+", lower)?;
    }
    Ok(overlay)
}

/// What a file system is mounted with: in a user namespace none of these may be taken away.
fn flags_of(path: &Path) -> io::Result<MountFlags> {
    use rustix::fs::StatVfsMountFlags;
    let found = rustix::fs::statvfs(path)?.f_flag;
    let pairs = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let flags = pairs.into_iter().filter(|(has, _)| found.contains(*has)).map(|(_, flag)| flag);
    Ok(flags.fold(MountFlags::empty(), |all, flag| all | flag))
}

fn attach(
    filesystem: &rustix::fd::OwnedFd,
    attributes: MountAttrFlags,
    at: &Path,
) -> io::Result<Mount> {
    let mounted = fsmount(filesystem.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    place(&mounted, at)
}

fn place(mounted: &rustix::fd::OwnedFd, at: &Path) -> io::Result<Mount> {
    move_mount(mounted.as_fd(), "", rustix::fs::CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    let mount = Mount { path: at.to_owned() };
    // Otherwise a copy of the mount in another mount namespace could keep it, or answer an
    // unmount here with one there.
    mount_change(at, MountPropagationFlags::PRIVATE)?;
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn layer(root: &Path, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let path = root.join(name);
        fs::create_dir_all(&path).unwrap();
        for (name, content) in files {
            fs::write(path.join(name), content).unwrap();
        }
        path
    }

    fn directories(root: &Path) -> (PathBuf, PathBuf, PathBuf) {
        let [upper, work, at] = ["upper", "work", "at"].map(|name| root.join(name));
        for path in [&upper, &work, &at] {
            fs::create_dir(path).unwrap();
        }
        (upper, work, at)
    }

    #[test]
    fn a_higher_layer_hides_a_lower_one() {
        let root = tempfile::tempdir().unwrap();
        let low = layer(root.path(), "low", &[("a", "low"), ("b", "low")]);
        let high = layer(root.path(), "high", &[("a", "high")]);
        let (_, _, at) = directories(root.path());
        let mount = mount_readonly(&[low, high], &at).unwrap();
        assert_eq!(fs::read_to_string(at.join("a")).unwrap(), "high");
        assert_eq!(fs::read_to_string(at.join("b")).unwrap(), "low");
        assert!(fs::write(at.join("c"), "").is_err());
        drop(mount);
        assert!(!at.join("a").exists());
    }

    #[test]
    fn a_layer_that_comes_twice_counts_where_it_is_highest() {
        let root = tempfile::tempdir().unwrap();
        let twice = layer(root.path(), "twice", &[("a", "twice")]);
        let between = layer(root.path(), "between", &[("a", "between"), ("b", "between")]);
        let again = root.path().join("between/../twice");
        let (upper, work, at) = directories(root.path());
        let mount = mount_readonly(&[twice.clone(), between.clone(), again.clone()], &at).unwrap();
        assert_eq!(fs::read_to_string(at.join("a")).unwrap(), "twice");
        assert_eq!(fs::read_to_string(at.join("b")).unwrap(), "between");
        drop(mount);
        let mount = mount_readonly(&[twice.clone(), again.clone()], &at).unwrap();
        assert_eq!(fs::read_to_string(at.join("a")).unwrap(), "twice");
        drop(mount);
        let mount = mount_writable(&[twice, between, again], &upper, &work, &at).unwrap();
        fs::write(at.join("b"), "new").unwrap();
        drop(mount);
        assert_eq!(fs::read_to_string(upper.join("b")).unwrap(), "new");
    }

    #[test]
    fn changes_go_to_the_upper_directory_only() {
        let root = tempfile::tempdir().unwrap();
        let low = layer(root.path(), "low", &[("a", "low")]);
        let (upper, work, at) = directories(root.path());
        let mount = mount_writable(std::slice::from_ref(&low), &upper, &work, &at).unwrap();
        fs::write(at.join("a"), "new").unwrap();
        drop(mount);
        assert_eq!(fs::read_to_string(upper.join("a")).unwrap(), "new");
        assert_eq!(fs::read_to_string(low.join("a")).unwrap(), "low");
    }

    #[test]
    fn chains_of_none_and_one_layer_mount_too() {
        let root = tempfile::tempdir().unwrap();
        let (upper, work, at) = directories(root.path());
        let mount = mount_writable(&[], &upper, &work, &at).unwrap();
        fs::write(at.join("a"), "x").unwrap();
        drop(mount);
        assert!(upper.join("a").exists());
        let mount = mount_readonly(&[], &at).unwrap();
        assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
        drop(mount);
        let mount = mount_readonly(&[upper], &at).unwrap();
        assert!(at.join("a").exists());
        assert!(fs::write(at.join("b"), "").is_err());
        drop(mount);
    }
}
