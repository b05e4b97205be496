//! Stages to a plan.
//!
//! `graph` finds what the target needs and which images are missing, `scope` knows the variables,
//! `stage` walks one stage's instructions; `config`, `run` and `copy` turn them into configuration,
//! history and steps, `mounts` reads `--mount`, `context` and `select` find the files that a copy depends on,
//! `reach` tells beforehand which may be, `history` writes what BuildKit writes.

mod checks;
mod config;
mod context;
mod copy;
mod epoch;
mod graph;
mod history;
mod mounts;
mod paths;
mod reach;
mod remotes;
mod run;
mod scope;
mod select;
mod stage;
mod whole;

pub(crate) use graph::Graph;
pub use graph::context_name;
pub(crate) use paths::searched;
pub use reach::{Paths, Reach};
pub(crate) use scope::{Global, Variables};
pub(crate) use whole::{Files, Outcome, missing_images, plan};
