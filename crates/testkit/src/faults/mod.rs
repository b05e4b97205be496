//! Faults between a client and a server: a proxy that spoils what passes, by rules, and a balancer
//! that stands before several servers. Both are test doubles of a bad network: plain threads, HTTP/1.1.

mod balancer;
mod dice;
mod listener;
mod proxy;
mod rule;

pub use balancer::Balancer;
pub use dice::Dice;
pub use proxy::FaultProxy;
pub use rule::{Fault, Rule};
