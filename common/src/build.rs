//! The state machine of a build.

use serde::{Deserialize, Serialize};

/// Where a build stands: `queued → planning → running →` one of the four ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildState {
    /// Accepted, not yet looked at.
    Queued,
    /// A coordinator parses it and fetches facts.
    Planning,
    /// Its stages are in the database.
    Running,
    /// Every output that was asked for exists.
    Succeeded,
    /// It ended with a failure.
    Failed,
    /// Somebody asked for its end.
    Cancelled,
    /// A newer build of the same branch took its place.
    Superseded,
}

/// A move that the state machine does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a build cannot go from {from} to {to}")]
pub struct WrongMove {
    /// The state that would be left.
    pub from: BuildState,
    /// The state that was asked for.
    pub to: BuildState,
}

impl BuildState {
    /// Every state, in the order of a build's life.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Planning,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Superseded,
    ];

    /// The name in the database, the API and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Planning => "planning",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
        }
    }

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether nothing can change any more.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Superseded)
    }

    /// Moves on, or says why not.
    pub fn advance(self, to: Self) -> Result<Self, WrongMove> {
        let allowed = match self {
            Self::Queued => !matches!(to, Self::Queued | Self::Running | Self::Succeeded),
            // Planning is repeated after the planner died.
            Self::Planning => !matches!(to, Self::Planning),
            Self::Running => to.is_terminal(),
            _ => false,
        };
        if allowed { Ok(to) } else { Err(WrongMove { from: self, to }) }
    }
}

impl std::fmt::Display for BuildState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_build_never_moves() {
        for from in BuildState::ALL.into_iter().filter(|state| state.is_terminal()) {
            for to in BuildState::ALL {
                assert_eq!(from.advance(to), Err(WrongMove { from, to }));
            }
        }
    }

    #[test]
    fn names_are_unique_and_found_again() {
        for state in BuildState::ALL {
            assert_eq!(BuildState::from_name(state.as_str()), Some(state));
        }
    }
}
