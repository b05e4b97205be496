//! What both daemons need: configuration, lifecycle, logs.

pub mod config;
pub mod lifecycle;
pub mod telemetry;
