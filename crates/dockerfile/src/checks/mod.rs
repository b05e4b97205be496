//! Build checks: what is legal in a Dockerfile and seldom meant. Rules, names and texts are those of
//! BuildKit's linter.
//!
//! `text` looks at the file alone, `froms` at its FROM lines; what needs the state of a stage is
//! found while that stage is planned. `config` reads which rules count.

mod config;
mod froms;
mod rule;
mod text;

pub(crate) use config::Config;
pub(crate) use froms::of_froms;
pub use rule::{Finding, Rule};
pub(crate) use text::{is_secret_name, of_text};
