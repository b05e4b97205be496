//! What travels between the programs: the public API, the worker protocol, problem documents.
//!
//! Wire types only. Domain types live in `common`; where they are already plain data (plans,
//! failures, digests) they are used as they are. Unknown fields are ignored when reading, so that
//! programs one version apart understand each other.

pub mod problem;
pub mod public;
mod secret;
pub mod worker;

pub use problem::Problem;
pub use secret::Secret;

/// Version of the worker protocol that this build speaks.
pub const WORKER_PROTOCOL: u32 = 2;
