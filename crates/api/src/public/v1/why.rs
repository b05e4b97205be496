//! Why steps ran.

use common::{BuildId, StageId};
use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/builds/{id}/why`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WhyView {
    /// The build.
    #[schema(value_type = String)]
    pub build: BuildId,
    /// The stages of which a step ran.
    pub stages: Vec<StageReasonsView>,
}

/// Why the steps of a stage ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StageReasonsView {
    /// The stage.
    #[schema(value_type = String)]
    pub stage: StageId,
    /// Name for people.
    pub label: String,
    /// The last build before that had this stage; none when it is the first.
    #[schema(value_type = Option<String>)]
    pub compared_with: Option<BuildId>,
    /// The steps that ran.
    pub steps: Vec<StepReasonView>,
}

/// Why a step ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StepReasonView {
    /// Number of the step.
    pub number: u32,
    /// The instruction.
    pub display: String,
    /// What is another thing than then, in words; files follow their source, with a sign: `+` new, `-`
    /// gone, `~` changed.
    pub reasons: Vec<String>,
}
