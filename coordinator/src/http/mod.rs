//! HTTP: the public API, the worker protocol, and what operators need.

mod dashboard;
mod documentation;
mod ops;
mod public;
mod reply;
mod serve;
mod stream;
mod token;
mod worker;

pub use documentation::openapi;
pub(crate) use serve::serve;
