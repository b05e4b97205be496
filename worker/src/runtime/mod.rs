//! Running commands in containers, through an OCI runtime.
//!
//! The order of things for one RUN: mount points that the container needs and the root file system
//! lacks are made (`stubs`), the user is looked up (`users`), the OCI configuration is written
//! (`spec`), a cgroup with the limits is made (`cgroup`), the runtime is started (`container`), and
//! all of it is taken back so that only the command's own changes stay.
//!
//! This is the only module with `unsafe` code (`supervise`).

mod capabilities;
mod cgroup;
mod config;
mod container;
mod deny;
mod disk;
mod mounts;
mod network;
mod probe;
pub mod rootless;
mod seccomp;
mod spec;
mod stubs;
pub mod supervise;
mod users;

pub use config::{DefaultNetwork, RuntimeConfig, RuntimeKind, SeccompMode};
pub use container::{OutputChunk, RunError, RunExit, RunRequest};
pub use deny::DenyError;
pub use disk::DiskExcess;
pub use mounts::{ContainerMount, MountSource};
pub use probe::{ProbeError, Runtime};
pub use users::{Identity, UnknownUser, resolve as resolve_user};
