//! The public API, version 1: what clients, scripts and the dashboard use.

pub mod v1;
