//! The whole farm as real processes: for end-to-end tests and the demo.

mod farm;
mod image;
mod standins;

pub use farm::{Farm, FarmOptions, Ran, leftovers};
pub use image::{Image, run_image};
pub use standins::push_base_images;

use std::path::PathBuf;

/// The root of the source tree.
pub fn source_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
