//! What BuildKit's Dockerfile frontend does with whole files, a fact a test.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

mod checks;
mod config;
mod corpus;
mod diagnostics;
mod faults;
mod flags;
mod hostile;
mod keys;
mod lines;
mod mounts;
mod planning;
mod platforms;
mod scopes;
mod stages;
