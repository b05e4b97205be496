//! Leases and their fencing token.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::StageId;

/// The fencing token of a stage: grows by one at each claim and is never reset.
///
/// It is not the number of the attempt: attempts can be forgiven, epochs cannot.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub i64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The right of one worker to run one stage. Every write of a worker names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lease {
    /// The stage that is held.
    pub stage: StageId,
    /// The claim that gave the lease.
    pub epoch: Epoch,
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.stage, self.epoch)
    }
}
