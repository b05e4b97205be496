//! Content-addressed bytes: trees, packs, and the object store that holds them.
//!
//! A context and a slice have one format: a *manifest* (a sorted tree, `docs/formats/manifest.md`)
//! and *packs* (groups of files as independent zstd frames, `docs/formats/pack.md`). Never one
//! object per small file: a store answers in 100 ms and takes some thousand requests a second.

pub mod layout;
pub mod manifest;
pub mod memory;
pub mod names;
pub mod objects;
pub mod pack;
pub mod scan;
