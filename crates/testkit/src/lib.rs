//! Test support: private services as real processes.
//!
//! Each service has a free port or a socket in its own directory and ends with the value that
//! stands for it; should the test itself be killed, the kernel ends the service. Start services on
//! the thread that keeps them: the kernel watches that thread.

mod cgroup;
mod faults;
mod process;
mod redis;

pub use cgroup::cgroups_named;
pub use faults::{Balancer, Dice, Fault, FaultProxy, Rule};
pub use process::{free_port, postgres, program, registry};
pub use redis::Redis;
pub use standalone::{Durability, Postgres, Registry, Service, wait_for};
