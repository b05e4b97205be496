//! A small S3 server over a directory: for one machine and for tests.
//!
//! The protocol (signatures, presigned URLs, XML) is crate `s3s`; this crate keeps the objects.
//! An object is a file named by the hash of its key, with a description beside it that holds the
//! key itself, so no key can name a path, and `x` and `x/y` are both fine. Bytes are checked before
//! they become visible, and become visible by rename. Objects of one PUT only: at most 5 GiB.

mod objects;
mod server;

pub use objects::Objects;
pub use server::{ServerConfig, serve};
