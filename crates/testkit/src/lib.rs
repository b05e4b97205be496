//! Test support: private services as real processes.
//!
//! Each service has a free port or a socket in its own directory and ends with the value that
//! stands for it; should the test itself be killed, the kernel ends the service. Start services on
//! the thread that keeps them: the kernel watches that thread.

mod postgres;
mod process;
mod redis;
mod registry;

pub use postgres::Postgres;
pub use process::{Service, free_port, program, wait_for};
pub use redis::Redis;
pub use registry::Registry;
