//! The cases, by section of the rules.

mod add;
mod caches;
mod config;
mod copy;
mod errors;
mod layers;
mod list;
mod options;
mod run;
mod stages;
mod text;

pub(crate) use list::all;
