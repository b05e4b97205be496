//! Moving tags of images.

use common::{BuildId, Lease};
use serde::{Deserialize, Serialize};

/// Body of `POST /worker/v1/tags`: a worker wants to move a tag, has moved it, or will not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TagRequest {
    /// The export.
    #[schema(value_type = Object)]
    pub lease: Lease,
    /// The tag, as the job names it.
    pub name: String,
    /// What about it.
    pub step: TagStep,
}

/// What a worker says of a tag. Each may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TagStep {
    /// It wants to move it.
    Ask,
    /// It has moved it.
    Moved,
    /// It has not moved it, for certain, and will not.
    Release,
}

/// Answer of `tags`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum TagAnswer {
    /// The tag may be moved. Nothing of that may be sent later.
    Granted {
        /// How long, counted from before the request was sent.
        good_millis: u64,
    },
    /// Somebody else moves it: ask again soon.
    Busy,
    /// It is left where a build that was submitted later has moved it, or may have.
    Left {
        /// That build.
        #[schema(value_type = String)]
        newer: BuildId,
    },
    /// It is noted.
    Noted,
}
