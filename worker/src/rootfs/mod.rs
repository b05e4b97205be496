//! Root file systems: overlay mounts over chains of immutable layer directories.
//!
//! `redirect_dir` and `metacopy` stay off: the upper directory of a step *is* its layer, so it must
//! hold whole files and no references into the layers below.

mod leftovers;
mod mount;

pub use leftovers::unmount_below;
pub use mount::{MAX_LAYERS, Mount, mount_directory, mount_memory, mount_readonly, mount_writable};
