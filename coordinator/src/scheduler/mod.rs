//! Which stage a worker gets: a pure function of what waits and who asks.

mod choose;

pub(crate) use choose::{Asking, choose};
