//! Logs, as Server-Sent Events or as text.

use common::StageId;
use serde::{Deserialize, Serialize};

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output of a command.
    Stdout,
    /// Standard error of a command.
    Stderr,
    /// Slipway itself.
    System,
}

/// One line of a stage's log. As an event its id is `<stage>:<epoch>:<chunk>:<line>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogLine {
    /// The stage.
    #[schema(value_type = String)]
    pub stage: StageId,
    /// Milliseconds since 1970, by the worker's clock.
    pub time_millis: i64,
    /// Number of the step, as in [`super::StepView::number`]; 0 is the stage itself.
    pub step: u32,
    /// Where it came from.
    pub stream: LogStream,
    /// The text without its line end; bytes that are no UTF-8 are replaced.
    pub text: String,
}
