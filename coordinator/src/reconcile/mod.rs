//! What time brings about: lost workers, ended planners, retries that are due.
//!
//! The same code as everywhere else, on a timer. Several coordinators may run it at once.

mod retention;
mod task;
mod time;

pub(crate) use retention::keep;
pub(crate) use task::run;
