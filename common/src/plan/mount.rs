//! What a RUN sees besides its root file system.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::CopyFrom;

/// One `--mount` of a RUN. Targets are absolute and cleaned; of two mounts on one target the later
/// one counts, and a mount below another one lies on top of it, in whatever order they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Mount {
    /// Files of the context, a stage or an image.
    Bind {
        /// Where.
        target: String,
        /// Whose files.
        from: CopyFrom,
        /// Which directory or file of `from`, absolute; `/` is all of it.
        source: String,
        /// Whether the command may write; what it writes is thrown away.
        writable: bool,
    },
    /// A directory that outlives the build. Never in a layer.
    Cache {
        /// Where.
        target: String,
        /// Its name within the project and trust domain.
        id: String,
        /// What it holds at first; nothing when absent.
        from: Option<CopyFrom>,
        /// Which directory of it, absolute; `/` is all of it.
        source: String,
        /// Who may use it at the same time.
        sharing: Sharing,
        /// Owner and mode of the directory when it is made; absent where the Dockerfile names none
        /// of them: then it is 0755 of root, or as in `from`.
        owner: Option<MountOwner>,
        /// Whether the command may only read.
        read_only: bool,
    },
    /// Memory that is gone after the command.
    Tmpfs {
        /// Where.
        target: String,
        /// Its size; without, the kernel's default.
        size_bytes: Option<u64>,
    },
    /// A value that no layer, key, history or log holds.
    Secret {
        /// Its name.
        id: String,
        /// The file that holds it, if there is to be one.
        target: Option<String>,
        /// The variable that holds it, if there is to be one.
        env: Option<String>,
        /// Whether the build fails without it.
        required: bool,
        /// Of the file.
        owner: MountOwner,
    },
    /// The client's SSH agent; `SSH_AUTH_SOCK` names the first one.
    Ssh {
        /// Its name.
        id: String,
        /// The socket.
        target: String,
        /// Whether the build fails without it.
        required: bool,
        /// Of the socket.
        owner: MountOwner,
    },
}

/// Owner and permission bits of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MountOwner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, up to 0o7777.
    pub mode: u32,
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// Everybody.
    #[default]
    Shared,
    /// A second user gets a directory of its own.
    Private,
    /// A second user waits.
    Locked,
}

/// What a command may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// What a container may do by default.
    #[default]
    Sandbox,
    /// Everything: all capabilities and devices, no filter; only where the operator allows it.
    Insecure,
}

/// What options of the build say of every RUN, beside the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunOptions {
    /// Host name; `buildkitsandbox` when absent, as in BuildKit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// More lines for `/etc/hosts`. Only the names are in the key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<(String, IpAddr)>,
    /// Size of `/dev/shm`; 64 MiB when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_bytes: Option<u64>,
    /// Resource limits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
}

/// A resource limit, as `setrlimit` takes it; -1 is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Its name without `RLIMIT_`, lower case: `nofile`.
    pub name: String,
    /// The soft limit.
    pub soft: i64,
    /// The hard limit.
    pub hard: i64,
}

impl Mount {
    /// Whose files it shows, if they are somebody's.
    pub fn from(&self) -> Option<&CopyFrom> {
        match self {
            Self::Bind { from, .. } => Some(from),
            Self::Cache { from, .. } => from.as_ref(),
            Self::Tmpfs { .. } | Self::Secret { .. } | Self::Ssh { .. } => None,
        }
    }
}
