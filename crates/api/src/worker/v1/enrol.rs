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
