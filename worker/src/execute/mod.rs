//! Running what was assigned: stages step by step, exports.

mod agent;
mod base;
pub mod copy;
mod export;
mod failure;
mod image;
mod job;
mod mounts;
mod remotes;
mod reports;
mod slices;
mod sources;
mod stage;
mod step;
mod tags;

pub(crate) use base::Published;
pub(crate) use job::run;
