//! `--ssh`: this machine's SSH agents, lent to a build while it runs.

mod answer;
mod keys;
mod source;

pub(crate) use answer::answer;
pub(crate) use source::{Source, names, sources};
