//! Steps as a stage runs them, through the worker's public modules: a chain of layers is mounted,
//! a command or a copy changes it, the change is packed, unpacked again and mounted for the next.
//!
//! Needs root, overlayfs, crun, runc and a static busybox, like the worker itself.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

mod archives;
mod calls;
mod copies;
mod doctor;
mod escapes;
mod layers;
mod limits;
mod network;
mod runs;
mod sandbox;
