//! The client's part in what builds ask of its SSH agents.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Secret;

/// Body of `POST /v1/builds/{id}/agent`: asks for messages to the agents that the client brought.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct AgentPoll {
    /// Messages that it has and has not answered yet: every other one is given, again if need be.
    pub working_on: Vec<Uuid>,
    /// How long the answer may be held back while there is none, in milliseconds.
    pub wait_millis: u64,
}

/// Answer to [`AgentPoll`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AgentMessages {
    /// What is asked, oldest first.
    pub messages: Vec<AgentMessage>,
    /// Connections that have ended.
    pub ended: Vec<Uuid>,
    /// Whether the build has ended: nothing more will be asked.
    pub is_over: bool,
}

/// A message to an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AgentMessage {
    /// Its id.
    pub id: Uuid,
    /// The agent's name: `--ssh NAME`.
    pub agent: String,
    /// The connection: one of its own to the agent belongs to it.
    pub connection: Uuid,
    /// The message without its length.
    pub message: Secret,
}

/// Body of `POST /v1/builds/{id}/agent/answers`. The first answer to a message counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AgentReply {
    /// The message.
    pub id: Uuid,
    /// What the agent says, without its length.
    pub message: Secret,
}
