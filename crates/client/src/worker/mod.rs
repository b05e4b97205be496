//! The worker's client.

mod client;

pub use client::Client;
