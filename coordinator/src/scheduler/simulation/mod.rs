//! A farm with a virtual clock: what the scheduler makes of a workload, without running anything.
//!
//! The same seed gives the same result. Workloads are random or recorded; workers have slots and
//! remember which layers they have; stages fetch what is missing, run, park where they copy from a
//! stage that has not ended, and go on at the same worker when it has a slot.

mod farm;
mod random;
mod ready;
mod recorded;
mod report;
#[cfg(test)]
mod tests;
mod workload;

pub use farm::{Farm, simulate};
pub use random::{Shape, random};
pub use recorded::{RecordingError, recorded};
pub use report::Report;
pub use workload::{Copy, Job, Workload};
