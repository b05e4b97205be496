//! What holds when calls race, come late, twice or not at all: against a real Postgres.

mod builds;
mod database;
mod leases;
