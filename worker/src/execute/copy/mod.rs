//! COPY, ADD and WORKDIR: files into a root file system.
//!
//! The rules are BuildKit's. Whatever a source tree or a root file system holds, nothing outside of
//! either is read or written: paths with symbolic links are resolved by the kernel with the tree as
//! the root (`openat2`, `RESOLVE_IN_ROOT`), and entries inside a copied tree are made by name in an
//! open directory, never through a link.

mod destination;
mod engine;
mod error;
mod glob;
mod inside;
mod mode;
mod node;
mod owner;
mod parents;
mod unpack;
mod whole;

pub use engine::{CopyInputs, CopyStats, copy, make_workdir, open_directory};
pub use error::CopyError;
pub use glob::{expand, has_wildcard, matches};
pub use inside::Root;
