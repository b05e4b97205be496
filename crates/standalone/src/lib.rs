//! The servers of a farm on one machine, from the programs that are installed: Postgres, a registry.
//!
//! A server is a child process that ends with the value that stands for it; should its owner be
//! killed, the kernel ends the server. Start servers on a thread that lives as long as they are to
//! live: the kernel watches that thread, not the process.

mod error;
mod postgres;
mod registry;
mod service;

pub use error::ServiceError;
pub use postgres::{Durability, Postgres};
pub use registry::{Registry, registry_is_installed};
pub use service::{Service, wait_for};
