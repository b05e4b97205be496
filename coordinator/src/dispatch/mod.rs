//! Who gets what, and who is told: one loop for all workers that wait at this coordinator.
//!
//! A worker whose exchange brought no news takes a seat and waits. A round looks at what is ready once
//! for all of them, chooses, claims in one statement, and rings; a worker that nothing has happened to
//! is not woken. Several coordinators may do so at once: a stage that two of them want goes to one.

mod round;
mod seats;
mod task;

pub(crate) use seats::{Rung, Seat, Seats};
pub(crate) use task::run;
