//! Which stage a worker gets: pure functions of what waits and who asks.
//!
//! Nothing here knows the database or the clock, so the same code runs in the simulation.

mod choose;
mod facts;
mod place;
mod predict;
pub mod simulation;

pub(crate) use choose::choose;
pub(crate) use facts::{Asking, Left, Needs, Offer, Ready, Shares};

pub(crate) use place::unplaceable;
pub(crate) use predict::{DEFAULT_MILLIS, critical_paths};
