//! Registries: resolving, pulling and pushing images (OCI distribution specification 1.1).

mod auth;
mod client;
mod config;
mod credentials;
mod error;
mod pull;
mod push;
mod resolve;
mod upload;

pub use client::Client;
pub use config::{Config, RegistryConfig};
pub use error::RegistryError;
pub use push::{PushBlob, PushImage};
