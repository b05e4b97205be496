//! The worker protocol.

pub mod v1;
