//! Typed clients of the coordinator.

mod error;
mod http;
pub mod public;
pub mod worker;

pub use error::ClientError;
pub use http::client as http_client;
