//! SSH agents of clients, used by commands and by git on machines that are not the client's.
//!
//! The protocol is draft-ietf-sshm-ssh-agent: each side sends a length of four bytes and that many
//! bytes, of which the first says what they are; each request has one answer. A [`Message`] here is
//! what stands behind the length. It is never looked into further than needed to tell what may be
//! passed on: listing keys and signing with them, nothing that changes the agent.

mod message;
mod socket;

pub use message::{MAX_MESSAGE_BYTES, Message, read, write};
pub use socket::{AgentSocket, Relay};
