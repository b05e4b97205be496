//! The coordinator: plans builds, keeps them in Postgres, hands stages to workers.
//!
//! Calls go down: `http` → `app` → `scheduler`, `store`, `blobstore`, `logbus`, `registry`,
//! `dockerfile`. A process keeps nothing that another one could not do without.

mod app;
pub mod auth;
mod boot;
pub mod config;
mod dispatch;
mod gather;
mod http;
mod metrics;
mod reconcile;
mod scheduler;
mod vault;

pub use boot::{BootError, Server};
pub use config::Config;
pub use http::openapi;
pub use scheduler::simulation;
