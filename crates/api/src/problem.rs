//! Errors over HTTP: problem documents as RFC 9457 has them.

use common::{Failure, FailureClass};
use serde::{Deserialize, Serialize};

/// Media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// Stable name: `urn:slipway:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Id of the request, to be found in the coordinator's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Problem {
    /// A problem with its code (kebab-case) and what happened.
    pub fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:slipway:problem:{code}"),
            title: code.replace('-', " "),
            status,
            detail: Some(detail.into()),
            hint: None,
            request_id: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The code without the prefix.
    pub fn code(&self) -> &str {
        self.kind.strip_prefix("urn:slipway:problem:").unwrap_or(&self.kind)
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.detail.as_deref().unwrap_or(&self.title))
    }
}

impl From<&Problem> for Failure {
    fn from(problem: &Problem) -> Self {
        let class = match problem.status {
            400..=499 => FailureClass::User,
            _ => FailureClass::Infrastructure,
        };
        let mut failure = Self::new(class, problem.code(), problem.to_string());
        failure.hint.clone_from(&problem.hint);
        failure
    }
}
