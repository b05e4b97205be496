//! What a worker keeps on disk. All of it is a cache: it can be had again.

mod directory;

pub(crate) use directory::ContentStore;
