//! The stages that a worker holds: slots, phases, cancellation.

mod fence;
mod held;
mod worker;

pub(crate) use fence::Fence;
pub(crate) use held::{Asker, Held, Stopped};
pub(crate) use worker::{Offer, Outside, Worker};
