//! What a token allows.

use std::str::FromStr;

use common::{ProjectName, WorkerId};
use serde::{Deserialize, Serialize};

/// A kind of thing that a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Reading builds, logs and workers.
    #[serde(rename = "builds:read")]
    BuildsRead,
    /// Submitting and cancelling builds.
    #[serde(rename = "builds:write")]
    BuildsWrite,
    /// Being a worker.
    #[serde(rename = "workers")]
    Workers,
    /// Everything.
    #[serde(rename = "admin")]
    Admin,
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "builds:read" => Ok(Self::BuildsRead),
            "builds:write" => Ok(Self::BuildsWrite),
            "workers" => Ok(Self::Workers),
            "admin" => Ok(Self::Admin),
            other => Err(format!(
                "unknown scope {other:?}: use builds:read, builds:write, workers or admin"
            )),
        }
    }
}

/// Whose request it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name in logs.
    pub subject: String,
    /// What is allowed.
    pub scopes: Vec<Scope>,
    /// For which projects; `None` is all.
    pub projects: Option<Vec<ProjectName>>,
    /// The worker that the token was made for.
    pub worker: Option<WorkerId>,
}

impl Identity {
    /// Whether a scope is allowed at all.
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|own| match (own, scope) {
            (Scope::Admin, _) | (Scope::BuildsWrite, Scope::BuildsRead) => true,
            (own, scope) => *own == scope,
        })
    }

    /// Whether a scope is allowed for a project.
    pub fn may(&self, scope: Scope, project: &ProjectName) -> bool {
        self.has(scope) && self.projects.as_ref().is_none_or(|projects| projects.contains(project))
    }
}
