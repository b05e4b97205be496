//! Logs of stages: lines, in numbered chunks, none lost.

mod sink;
mod split;

pub(crate) use sink::{LogSink, LogWriter};
