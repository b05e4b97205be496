//! Logs of stages: lines, in numbered chunks, none lost.

mod bound;
mod mask;
mod sink;
mod split;

pub(crate) use mask::Mask;
pub(crate) use sink::{LogSink, LogWriter};
