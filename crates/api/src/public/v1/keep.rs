//! What is kept.

use serde::{Deserialize, Serialize};

/// What the purge of a build came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PurgeView {
    /// Records that the cache has forgotten: steps and slices that run anew.
    pub records: u64,
    /// Objects whose bytes go.
    pub objects: u64,
    /// These bytes.
    pub bytes: u64,
    /// How many of them go only when builds have ended that may read them.
    pub waiting: u64,
    /// Objects that stay, the first hundred: others have the same bytes.
    pub kept: Vec<KeptObject>,
    /// When no build may read them, the bytes are gone after this time at the latest: addresses may
    /// be about by which they can be read and written.
    pub within_seconds: u64,
}

/// An object that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeptObject {
    /// `blob`, `pack`, `manifest` or `export`.
    pub kind: String,
    /// Its digest.
    pub digest: String,
}

/// A project: what was set for it, and what it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProjectView {
    /// Its name.
    pub name: String,
    /// What was set.
    pub settings: ProjectSettings,
    /// Bytes in the object store, when they were counted last.
    pub used_bytes: u64,
    /// Objects there.
    pub used_objects: u64,
    /// By how much that is more than it may have: so much of its cache goes, oldest use first.
    pub over_bytes: u64,
    /// Seconds since they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_seconds: Option<u64>,
}

/// Settings of a project. What is not there is the farm's setting; in a change it stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectSettings {
    /// Its part of the workers against the parts of the other projects: 1 to 100000, 100 is usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Most bytes in the object store; 0 is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_bytes: Option<u64>,
    /// How long what is cached is kept after its last use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_seconds: Option<u64>,
    /// How long logs are kept after the end of their build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_seconds: Option<u64>,
    /// How long builds are kept after their end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_seconds: Option<u64>,
}
