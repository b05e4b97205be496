//! Messages to the SSH agent of a client.

use common::Lease;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Secret;

/// Body of `POST /worker/v1/agent`: a message of a command, or of git, to an agent that the stage may
/// use. Held open for a while; repeated with the same id until there is an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AgentCall {
    /// The stage.
    #[schema(value_type = Object)]
    pub lease: Lease,
    /// Of this message: the same id is the same message.
    pub id: Uuid,
    /// The agent's name.
    pub agent: String,
    /// The connection that the message came by: some requests are about it.
    pub connection: Uuid,
    /// The message without its length; absent when the connection has ended, which has no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Secret>,
}

/// Answer of `agent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum AgentAnswer {
    /// What the agent says.
    Answered {
        /// The message without its length.
        message: Secret,
    },
    /// Nothing yet: ask again.
    Pending,
    /// There will be no answer.
    Unanswered {
        /// Why, for the log.
        reason: String,
    },
}
