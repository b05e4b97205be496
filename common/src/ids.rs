//! Names of things: ids are UUIDs (version 7, so they sort by creation), projects have short names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }
    };
}

id! {
    /// One build request and its result.
    BuildId
}
id! {
    /// One dispatchable job of a build: a stage of the Dockerfile or an export.
    StageId
}
id! {
    /// One enrolled worker. It outlives the worker's process.
    WorkerId
}
id! {
    /// One run of a worker process. A reconnect keeps it, a restart makes a new one.
    SessionId
}

/// A project's name: the scope of cache, settings and permissions.
///
/// `[a-z0-9]` first, then `[a-z0-9._-]`, at most 63 characters, never `..`. It is part of object
/// names in S3, so nothing else is ever accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectName(String);

/// A project name with characters or a length that are not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid project name {0:?}: use a-z, 0-9, '.', '_' and '-', 1 to 63 characters")]
pub struct InvalidProjectName(String);

impl ProjectName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ProjectName {
    type Error = InvalidProjectName;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let valid = (1..=63).contains(&name.len())
            && name.bytes().next().is_some_and(inner)
            && name.bytes().all(|b| inner(b) || matches!(b, b'.' | b'_' | b'-'))
            && !name.contains("..");
        if valid { Ok(Self(name)) } else { Err(InvalidProjectName(name)) }
    }
}

impl FromStr for ProjectName {
    type Err = InvalidProjectName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::try_from(name.to_owned())
    }
}

impl From<ProjectName> for String {
    fn from(name: ProjectName) -> Self {
        name.0
    }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose code a build runs: the project's own, or a stranger's, as of a pull request from a fork.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// The project's own.
    #[default]
    Trusted,
    /// A stranger's: what it stores is used by builds of its kind alone.
    Untrusted,
}

impl Trust {
    /// The label that a worker has and a stage needs where untrusted builds run.
    pub const LABEL: &str = "slipway/untrusted";
    /// Labels that begin so are the farm's own.
    pub const RESERVED: &str = "slipway/";

    /// Whether this is [`Self::Trusted`].
    pub fn is_trusted(&self) -> bool {
        *self == Self::Trusted
    }

    /// Whether this is [`Self::Untrusted`].
    pub fn is_untrusted(&self) -> bool {
        !self.is_trusted()
    }
}

/// A trust domain: the scope in which the cache is shared. An untrusted one reads from the trusted one
/// of its project, and never the other way round.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain {
    /// The project.
    pub project: ProjectName,
    /// Which of its two domains.
    pub trust: Trust,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_names_never_leave_their_prefix() {
        for name in ["default", "team-a", "a.b_c", "0"] {
            assert!(name.parse::<ProjectName>().is_ok(), "{name}");
        }
        for name in ["", "..", "a..b", "a/b", ".a", "A", "ä", &"x".repeat(64)] {
            assert!(name.parse::<ProjectName>().is_err(), "{name}");
        }
    }
}
