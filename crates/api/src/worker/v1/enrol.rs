//! Joining the farm.

use common::{Platform, WorkerId};
use serde::{Deserialize, Serialize};

/// Body of `POST /worker/v1/enrol`; the bearer token is a join token (scope `workers`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EnrolRequest {
    /// Id that the worker keeps in its data directory.
    #[schema(value_type = String)]
    pub worker: WorkerId,
    /// Name for people, such as the host name.
    pub name: String,
    /// Platforms that it runs.
    #[schema(value_type = Vec<String>)]
    pub platforms: Vec<Platform>,
    /// What stages may ask for, such as `gpu` or `disk=fast`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Processors in thousandths; 0 is not said, and then every stage fits.
    #[serde(default)]
    pub cpu_millis: u32,
    /// Memory in bytes; 0 is not said.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Version of its program.
    pub version: String,
    /// Version of the protocol: [`crate::WORKER_PROTOCOL`].
    pub protocol: u32,
}

/// Answer of `enrol`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EnrolResponse {
    /// Token for every other call of this worker.
    pub token: String,
    /// Seconds until the token ends; enrol again before that.
    pub token_secs: u64,
}
