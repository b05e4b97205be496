//! What a host allows a worker, and how to get the rest.

mod checks;
mod report;

pub use checks::examine;
pub use report::{Finding, Level, Report};
