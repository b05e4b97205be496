//! `slipway up`: the whole farm on one machine.
//!
//! Postgres, a registry and the workers are child processes; the coordinator and the object store
//! run inside this one. It is the farm that people run in production: the same code on a real
//! Postgres and over the real S3 protocol, with keys and tokens of its own. Everything lies below
//! one directory, and stopping it loses nothing.

mod background;
mod config;
mod farm;
mod keys;
mod place;

pub(crate) use background::offer_to_start;
pub(crate) use farm::{run, work};
pub(crate) use place::{Place, default_directory};
