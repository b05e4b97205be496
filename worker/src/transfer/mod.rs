//! Bytes in and out: layers from registries and from the farm, trees, uploads.

mod error;
mod layers;
mod objects;
mod trees;

pub(crate) use error::{DISK_FULL, TransferError, is_full};
pub(crate) use layers::{ensure_blob, ensure_layers, open_blob};
pub(crate) use objects::upload;
pub(crate) use trees::{LaidOut, Wanted, lay_out};
