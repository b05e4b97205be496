//! The vocabulary of Slipway.
//!
//! Every other crate speaks in these types. Nothing here does I/O, takes the time or rolls dice:
//! callers pass such facts in. The words are those of the glossary in `ARCHITECTURE.md`.

pub mod build;
pub mod cache_key;
pub mod digest;
pub mod holes;
pub mod ids;
pub mod ignore;
pub mod image;
pub mod lease;
pub mod outcome;
pub mod plan;
pub mod platform;
pub mod resources;
pub mod stage;
pub mod tree;

pub use digest::Digest;
pub use ids::{BuildId, Domain, ProjectName, SessionId, StageId, Trust, WorkerId};
pub use lease::{Epoch, Lease};
pub use outcome::{Failure, FailureClass};
pub use platform::Platform;
