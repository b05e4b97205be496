//! Stages to a plan.
//!
//! `graph` finds what the target needs and which images are missing, `scope` knows the variables,
//! `stage` walks one stage's instructions and computes configuration, history and steps, `context`
//! selects the files that a copy depends on, `history` writes what BuildKit writes.

mod context;
mod graph;
mod history;
mod paths;
mod scope;
mod stage;
mod whole;

pub(crate) use whole::{Outcome, plan};
