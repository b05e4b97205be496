//! The public API's client.

mod client;
mod events;

pub use client::Client;
pub use events::Event;
