//! The whole farm as real processes: for end-to-end tests and the demo.

mod archive;
mod buildkit;
mod chaos;
mod farm;
mod files;
mod image;
mod repository;
mod ssh;
mod standins;

pub use archive::{ArchivedImage, Node};
pub use buildkit::BuildKit;
pub use chaos::{Ended, Launched, Piece, Shape};
pub use farm::{Farm, FarmOptions, Ran, leftovers};
pub use files::{WebFile, WebFiles};
pub use image::{Image, run_image};
pub use repository::GitServer;
pub use ssh::{SshAgent, SshServer, copy_program};
pub use standins::push_base_images;

use std::path::PathBuf;

use anyhow::Context as _;

/// Where things that take long to make are kept between runs.
pub fn cache_directory() -> anyhow::Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(cache.join("slipway"))
}

/// The root of the source tree.
pub fn source_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
