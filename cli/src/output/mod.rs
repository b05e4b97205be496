//! What people see.

mod display;
mod summary;
mod write;

pub(crate) use display::Display;
pub(crate) use summary::{bytes, duration, table};
pub(crate) use write::print;
