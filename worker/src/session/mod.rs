//! The conversation with the coordinator.

mod exchange;

pub(crate) use exchange::run;
