//! What a worker keeps on disk. All of it is a cache: it can be had again.

mod access;
mod caches;
mod chains;
mod command;
mod control;
#[cfg(test)]
mod crash_tests;
mod directory;
mod entry;
mod index;
mod journal;
mod keeper;
mod measure;
mod policy;
mod trees;
mod usage;
mod verify;

pub(crate) use access::Right;
pub(crate) use caches::{Cache, cache_name};
pub(crate) use chains::{Chain, OpenChain, Scratch};
pub use command::StoreAction;
pub(crate) use command::run as store_command;
pub(crate) use control::serve;
pub(crate) use directory::ContentStore;
pub(crate) use index::Pin;
pub(crate) use keeper::keep;
pub(crate) use policy::{Limits, Wanted};
pub(crate) use trees::KnownTree;
