//! What a build is told beside its Dockerfile.

use std::net::IpAddr;

use common::plan::{Network, RunOptions, Ulimit};
use common::{Digest, Platform};
use serde::{Deserialize, Serialize};

/// `--build-context`: what takes the place of a stage or an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum NamedContextSource {
    /// Files that the client has uploaded.
    Files {
        /// Digest of their manifest.
        #[schema(value_type = String)]
        manifest: Digest,
        /// When their source was made, in seconds since 1970, as with the main context.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        made_at: Option<i64>,
    },
    /// An image.
    Image {
        /// A reference such as `alpine:3.20`.
        reference: String,
    },
    /// An image of a layout of the client's: its layers have been uploaded as blobs.
    Layout {
        /// One, or one a platform.
        images: Vec<LayoutImage>,
    },
    /// What an earlier target of the same build makes, for the same platform.
    Target {
        /// Its name.
        name: String,
    },
}

/// An image that a client brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LayoutImage {
    /// What it is for; absent where the layout has this image alone, which then serves everyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub platform: Option<Platform>,
    /// Its manifest's bytes in base64; at most 4 MiB decoded.
    pub manifest_base64: String,
    /// Its configuration's bytes in base64; at most 4 MiB decoded.
    pub config_base64: String,
}

/// The surroundings of every RUN that does not say otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct CommandOptions {
    /// What commands reach: `default`, `none`, `host`.
    #[schema(value_type = String)]
    pub network: Network,
    /// More names for `/etc/hosts`. Only the names count for the cache.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostOption>,
    /// Size of `/dev/shm` in bytes; absent is 64 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_bytes: Option<u64>,
    /// Resource limits of the processes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<UlimitOption>,
}

/// A name and its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HostOption {
    /// The name.
    pub name: String,
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
}

/// A resource limit; -1 is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UlimitOption {
    /// Its name without `RLIMIT_`, lower case: `nofile`.
    pub name: String,
    /// The soft limit.
    pub soft: i64,
    /// The hard limit.
    pub hard: i64,
}

impl CommandOptions {
    /// As the planner takes them.
    pub fn run_options(&self) -> RunOptions {
        let ulimit = |limit: &UlimitOption| Ulimit {
            name: limit.name.clone(),
            soft: limit.soft,
            hard: limit.hard,
        };
        RunOptions {
            hostname: None,
            hosts: self.hosts.iter().map(|host| (host.name.clone(), host.address)).collect(),
            shm_bytes: self.shm_bytes,
            ulimits: self.ulimits.iter().map(ulimit).collect(),
        }
    }
}
