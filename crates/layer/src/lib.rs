//! Layers: deterministic archives of what a step changed, and their way back to a directory.
//!
//! A layer archive follows the OCI image specification (`layer.md`): changed files, `.wh.` entries
//! for removed ones. On disk a layer is a directory in overlayfs form: a character device 0/0 for a
//! removed file, the attribute `trusted.overlay.opaque`, or `user.overlay.opaque`, for a replaced directory.

mod bounded;
mod compress;
mod extract;
mod header;
mod namespace;
mod pack;
mod recompress;
pub mod sparse;

pub use bounded::{Bounded, Gate};
pub use compress::Compression;
pub use extract::{ExtractError, Extracted, extract};
pub use header::HeaderNumbers;
pub use namespace::in_user_namespace;
pub use pack::{PackError, PackedLayer, pack_scanned, pack_upper};
pub use recompress::{Recompress, RecompressError, recompress};

/// Prefix of the name that stands for a removed file.
const WHITEOUT_PREFIX: &str = ".wh.";
/// Name that stands for "nothing of the directory below is left".
const OPAQUE_NAME: &str = ".wh..wh..opq";
/// The only attribute that travels in a layer, as in BuildKit.
const CAPABILITY_XATTR: &str = "security.capability";
