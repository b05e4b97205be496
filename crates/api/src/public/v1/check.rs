//! Checks: what is wrong or unwise in a Dockerfile, and what it offers.

use common::Failure;
use common::outcome::LineRange;
use serde::{Deserialize, Serialize};

/// Answer of `POST /v1/checks`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CheckView {
    /// Why it could not be planned, or that the file wants findings to be failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub failure: Option<Failure>,
    /// What the checks found, in the order of the file.
    pub findings: Vec<FindingView>,
    /// The stages that can be built.
    pub targets: Vec<TargetView>,
    /// What the build of the target takes; absent where it could not be planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outline: Option<OutlineView>,
}

/// What a rule found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FindingView {
    /// The rule's name, as `# check=skip=` takes it.
    pub rule: String,
    /// What the rule asks for.
    pub description: String,
    /// Where the rule is documented.
    pub url: String,
    /// What it found.
    pub message: String,
    /// Where.
    #[schema(value_type = Object)]
    pub lines: LineRange,
}

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TargetView {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// From the comment above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it starts from, as written.
    pub base: String,
    /// `--platform`, as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Whether it is built when nothing is asked for.
    pub is_default: bool,
    /// Its FROM.
    #[schema(value_type = Object)]
    pub lines: LineRange,
}

/// What the build of a target takes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OutlineView {
    /// The target's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// From the comment above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Build arguments.
    pub args: Vec<OutlineArgView>,
    /// Secrets of commands.
    pub secrets: Vec<OutlineMountView>,
    /// SSH agents of commands.
    pub ssh: Vec<OutlineMountView>,
    /// Cache mounts.
    pub caches: Vec<OutlineMountView>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OutlineArgView {
    /// Its name.
    pub name: String,
    /// The value that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// From the comment above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where it is declared.
    #[schema(value_type = Object)]
    pub lines: LineRange,
}

/// Something that commands mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OutlineMountView {
    /// Its name.
    pub name: String,
    /// Whether a command cannot do without.
    pub required: bool,
    /// Where it is first mounted.
    #[schema(value_type = Object)]
    pub lines: LineRange,
}
