//! The state machine of a stage, the unit of dispatch.

use serde::{Deserialize, Serialize};

/// What a dispatched job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// One `FROM …` block of the Dockerfile.
    Stage,
    /// Turning the target's layers into what was asked for: a pushed image, an archive.
    Export,
}

impl StageKind {
    /// The name in the database and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Export => "export",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Stage, Self::Export].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Where a stage stands.
///
/// `waiting → ready → running ⇄ parked → succeeded | failed | cancelled`, and from the plan on
/// `cached` (every step was found), `skipped` (nobody needs it), `attached` (another build runs it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageState {
    /// Its base is not there yet.
    Waiting,
    /// A worker may take it.
    Ready,
    /// A worker holds a slot for it.
    Running,
    /// A worker holds its root file system, without a slot, until an input arrives.
    Parked,
    /// Its result is recorded.
    Succeeded,
    /// It ended with a failure.
    Failed,
    /// Its build was cancelled or failed elsewhere.
    Cancelled,
    /// Every step was found in the cache when the build was planned.
    Cached,
    /// It shares the run of a stage with the same key.
    Attached,
    /// Nothing that runs needs it.
    Skipped,
}

/// A move that the state machine does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stage cannot go from {from} to {to}")]
pub struct WrongMove {
    /// The state that would be left.
    pub from: StageState,
    /// The state that was asked for.
    pub to: StageState,
}

impl StageState {
    /// Every state.
    pub const ALL: [Self; 10] = [
        Self::Waiting,
        Self::Ready,
        Self::Running,
        Self::Parked,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Cached,
        Self::Attached,
        Self::Skipped,
    ];

    /// The name in the database, the API and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Parked => "parked",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Cached => "cached",
            Self::Attached => "attached",
            Self::Skipped => "skipped",
        }
    }

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether nothing can change any more.
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Cached | Self::Skipped
        )
    }

    /// Whether a worker holds it.
    pub const fn is_held(self) -> bool {
        matches!(self, Self::Running | Self::Parked)
    }

    /// Moves on, or says why not.
    pub fn advance(self, to: Self) -> Result<Self, WrongMove> {
        use StageState::{
            Attached, Cached, Cancelled, Failed, Parked, Ready, Running, Skipped, Succeeded,
            Waiting,
        };
        let allowed = match self {
            Waiting => matches!(to, Ready | Cancelled | Failed | Cached | Skipped | Attached),
            // Straight to failed: nobody can run it.
            Ready => matches!(to, Running | Cancelled | Failed | Cached | Skipped),
            // Back to ready: the worker was lost, or handed it back.
            Running => matches!(to, Parked | Succeeded | Failed | Cancelled | Ready),
            Parked => matches!(to, Running | Failed | Cancelled | Ready),
            Attached => matches!(to, Succeeded | Failed | Cancelled | Ready | Waiting),
            Succeeded | Failed | Cancelled | Cached | Skipped => false,
        };
        if allowed { Ok(to) } else { Err(WrongMove { from: self, to }) }
    }
}

impl std::fmt::Display for StageState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_stage_never_moves() {
        for from in StageState::ALL.into_iter().filter(|state| state.is_terminal()) {
            for to in StageState::ALL {
                assert_eq!(from.advance(to), Err(WrongMove { from, to }));
            }
        }
    }

    #[test]
    fn a_parked_stage_gives_no_result_before_it_runs_again() {
        assert!(StageState::Parked.advance(StageState::Succeeded).is_err());
        assert_eq!(StageState::Parked.advance(StageState::Running), Ok(StageState::Running));
    }

    #[test]
    fn names_are_unique_and_found_again() {
        for state in StageState::ALL {
            assert_eq!(StageState::from_name(state.as_str()), Some(state));
        }
    }
}
