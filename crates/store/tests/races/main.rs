//! What holds when calls race, come late, twice or not at all: against a real Postgres.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

mod agents;
mod builds;
mod database;
mod flight;
mod leases;
mod retention;
mod scheduling;
mod tags;
mod trust;
