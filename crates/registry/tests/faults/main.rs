//! A registry that misbehaves, and the client that bears it.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

mod double;
mod pull;
mod push;
