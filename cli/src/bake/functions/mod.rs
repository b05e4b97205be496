//! The functions that files can call: those of bake's standard library, but for the few that are
//! refused.

mod collection;
mod encode;
mod library;
mod numeric;
mod textual;

pub(super) use library::{
    Arguments, boolean, call, list, number, position, quotient, same, size, text, value_of,
};
use library::{MAX_SIZE, integer};
