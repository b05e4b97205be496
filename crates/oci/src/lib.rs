//! Image formats of the OCI image specification 1.1 and Docker's schema 2: references, manifests,
//! indexes, archives.

pub mod archive;
pub mod image;
pub mod manifest;
pub mod media_type;
pub mod reference;

pub use reference::Reference;
