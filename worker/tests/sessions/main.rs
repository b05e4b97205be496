//! A whole worker against a simulated coordinator: sessions, stages, transfers, logs.
//!
//! Needs root, overlayfs, crun or runc, and a static busybox, like the worker itself.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

mod access;
mod coordinator;
mod disk;
mod faults;
mod jobs;
mod limits;
mod stages;
