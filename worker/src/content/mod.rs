//! What a worker keeps on disk. All of it is a cache: it can be had again.

mod caches;
mod directory;
mod trees;

pub(crate) use caches::{Cache, cache_name};
pub(crate) use directory::ContentStore;
pub(crate) use trees::KnownTree;
