//! Bake files: what they say, as targets whose values stand for flags of `build`.
//!
//! The meaning is that of `docker buildx bake` (docs/bake-reference.md of docker/buildx): HCL, its JSON
//! form, and compose files. What is not built is refused by name.

mod body;
mod compose;
mod definition;
mod evaluate;
mod flags;
mod functions;
mod interpolate;
mod source;

pub(crate) use definition::Target;
pub(crate) use flags::flags;
pub(crate) use source::{Source, read};

#[cfg(test)]
mod tests;
