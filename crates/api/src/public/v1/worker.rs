//! Workers, as operators see them.

use common::WorkerId;
use serde::{Deserialize, Serialize};

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WorkerView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: WorkerId,
    /// Its name.
    pub name: String,
    /// `live`, `suspect`, `lost`, `draining`, or `quarantined`: it failed too often and is left alone
    /// for a while.
    pub state: String,
    /// Platforms that it runs.
    pub platforms: Vec<String>,
    /// Stages that it runs at once.
    pub slots: u32,
    /// Stages that hold a slot now.
    pub used_slots: u32,
    /// What stages may ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Processors in thousandths that stages may ask for; 0 is not said.
    #[serde(default)]
    pub cpu_millis: u32,
    /// Memory in bytes that stages may ask for; 0 is not said.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Why it gets no stage now, in words; none when it has a slot for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_because: Option<String>,
    /// Version of its program.
    pub version: String,
    /// Milliseconds since it last called.
    pub last_seen_millis: u64,
}
