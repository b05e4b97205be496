//! Configuration of a worker.

mod sections;

pub use sections::{Config, CoordinatorConfig, SECTIONS, WorkerConfig};
