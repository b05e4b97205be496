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
    /// Version of its program.
    pub version: String,
    /// Milliseconds since it last called.
    pub last_seen_millis: u64,
}
