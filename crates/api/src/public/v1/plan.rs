//! Plans: what a build would do, without doing it.

use common::cache_key::KeyPart;
use common::outcome::LineRange;
use common::{Digest, Failure};
use serde::{Deserialize, Serialize};

/// What would become of a stage or a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlannedFate {
    /// It is in the cache.
    Cached,
    /// It would run.
    Run,
    /// Nobody who runs needs it.
    Skipped,
}

/// Answer of `POST /v1/plans`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PlanView {
    /// Why there is no plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub failure: Option<Failure>,
    /// What should be looked at.
    pub warnings: Vec<String>,
    /// The stages that the target needs, producers before consumers; the last one is the target.
    pub stages: Vec<PlannedStageView>,
}

/// One stage of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PlannedStageView {
    /// Its name, else `stage-<position in the Dockerfile>`.
    pub label: String,
    /// The `FROM` instruction.
    #[schema(value_type = Object)]
    pub lines: LineRange,
    /// Platform that its commands run on.
    pub platform: String,
    /// What it starts from: `scratch`, the label of a stage, or an image with its digest.
    pub base: String,
    /// Labels of the stages whose files it reads.
    pub reads: Vec<String>,
    /// What would become of it.
    pub fate: PlannedFate,
    /// Its steps.
    pub steps: Vec<PlannedStepView>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PlannedStepView {
    /// As in `[builder 2/5]`.
    pub number: u32,
    /// The instruction.
    pub display: String,
    /// Where it stands in the Dockerfile.
    #[schema(value_type = Object)]
    pub lines: LineRange,
    /// What would become of it.
    pub fate: PlannedFate,
    /// The key that it is looked up by.
    #[schema(value_type = String)]
    pub key: Digest,
    /// What the key is made of, in order.
    #[schema(value_type = Vec<Object>)]
    pub key_parts: Vec<KeyPart>,
}
