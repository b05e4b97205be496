//! Looking steps up by what they read.

use common::Lease;
use common::image::Layer;
use common::plan::SliceSelector;
use serde::{Deserialize, Serialize};

/// Body of `POST /worker/v1/cache/lookup`: what the step reads of other stages is there. Asked before
/// it runs: the same files may have been read before, however they were made then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LookupRequest {
    /// The stage.
    #[schema(value_type = Object)]
    pub lease: Lease,
    /// Number of the step that would run next.
    pub step: u32,
}

/// Answer of `cache/lookup`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LookupResponse {
    /// Layers of that step and of those after it that need not run, one each.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub layers: Vec<Layer>,
    /// Slices of the stage that need not be made; only where no step is left to run.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub slices: Vec<SliceSelector>,
}
