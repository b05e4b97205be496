//! Layers: deterministic archives of what a step changed, and their way back to a directory.
//!
//! A layer archive follows the OCI image specification (`layer.md`): changed files, `.wh.` entries
//! for removed ones. On disk a layer is a directory in overlayfs form: a character device 0/0 for a
//! removed file, the attribute `trusted.overlay.opaque` for a replaced directory.

mod compress;
mod extract;
mod header;
mod pack;
mod recompress;

pub use compress::Compression;
pub use extract::{ExtractError, Extracted, extract};
pub use header::HeaderNumbers;
pub use pack::{PackError, PackedLayer, pack_upper};
pub use recompress::{Recompress, RecompressError, recompress};

/// Prefix of the name that stands for a removed file.
const WHITEOUT_PREFIX: &str = ".wh.";
/// Name that stands for "nothing of the directory below is left".
const OPAQUE_NAME: &str = ".wh..wh..opq";
/// The attribute by which overlayfs says the same.
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
/// The only attribute that travels in a layer, as in BuildKit.
const CAPABILITY_XATTR: &str = "security.capability";
