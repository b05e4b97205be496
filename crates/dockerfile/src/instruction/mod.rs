//! Logical lines to typed instructions.

mod flags;
mod health;
mod kinds;
mod parse;
mod transfer;
mod words;

pub(crate) use kinds::{CommandForm, Copy, Health, Instruction, Run, Spanned};
pub(crate) use parse::parse;
pub(crate) use transfer::{SourceKind, source_kind};
pub(crate) use words::first_word;
