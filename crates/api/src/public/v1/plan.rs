//! Plans: what a build would do, without doing it.

use common::cache_key::KeyPart;
use common::outcome::LineRange;
use common::{Digest, Failure};
use serde::{Deserialize, Serialize};

use super::build::BuildRequest;

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

/// What is asked of a repository over ssh that the farm cannot reach without the client's agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RepositoryQuestion {
    /// Its address.
    pub url: String,
    /// The branch or tag; absent is the default branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Whether it is asked when the commit was made, in seconds since 1970, and not which one it is.
    #[serde(default)]
    pub time: bool,
}

/// A client's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RepositoryAnswer {
    /// To what.
    pub question: RepositoryQuestion,
    /// The commit, in hexadecimal digits, or the time.
    pub answer: String,
}

/// Body of `POST /v1/plans`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PlanRequest {
    /// The build.
    #[serde(flatten)]
    pub build: BuildRequest,
    /// Answers to what an earlier try asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<RepositoryAnswer>,
}

/// Answer of `POST /v1/plans`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PlanView {
    /// Why there is no plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub failure: Option<Failure>,
    /// What the client has to say for there to be one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<RepositoryQuestion>,
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
