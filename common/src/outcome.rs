//! How things end: failures, their classes, and the exit code of each.

use serde::{Deserialize, Serialize};

/// Whose fault a failure is. Seen in the API, exit codes, the dashboard and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The Dockerfile, its context or the request is wrong. Never retried.
    User,
    /// Out of memory, time, processes or disk.
    Resource,
    /// A registry refused or could not be reached.
    Registry,
    /// The farm's own fault: a lost worker, a failing store. Retried.
    Infrastructure,
    /// Somebody asked for the end.
    Cancelled,
}

impl FailureClass {
    /// Every class.
    pub const ALL: [Self; 5] =
        [Self::User, Self::Resource, Self::Registry, Self::Infrastructure, Self::Cancelled];

    /// The name in the database, the API and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Resource => "resource",
            Self::Registry => "registry",
            Self::Infrastructure => "infrastructure",
            Self::Cancelled => "cancelled",
        }
    }

    /// The class of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }

    /// The exit code of `slipway build`; 0 is success and 2 is wrong usage.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::User => 1,
            Self::Resource => 3,
            Self::Registry => 4,
            Self::Infrastructure => 5,
            Self::Cancelled => 130,
        }
    }
}

impl std::fmt::Display for FailureClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A place in a Dockerfile. Lines count from 1, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LineRange {
    /// First line of the instruction.
    pub start: u32,
    /// Last line of the instruction, continuation lines and heredocs included.
    pub end: u32,
}

impl std::fmt::Display for LineRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.start == self.end {
            write!(f, "{}", self.start)
        } else {
            write!(f, "{}-{}", self.start, self.end)
        }
    }
}

/// A word in a line of a Dockerfile. All count from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    /// The line.
    pub line: u32,
    /// The column of its first character.
    pub column: u32,
    /// How many characters it has.
    pub length: u32,
}

/// Why a build or a stage failed, for people and for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whose fault it is.
    pub class: FailureClass,
    /// A stable kebab-case name of the cause, such as `run-exit-code` or `unknown-stage`.
    pub code: String,
    /// What happened, one line, lower case, no final period.
    pub message: String,
    /// What to do about it, if something is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Name of the Dockerfile, as the client gave it, when a line is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The lines to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<LineRange>,
    /// The word to blame, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// The text of those lines, for showing them under the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
    /// Exit code of the command, when a command failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

impl Failure {
    /// A failure with class, code and message only.
    pub fn new(class: FailureClass, code: &str, message: impl Into<String>) -> Self {
        Self {
            class,
            code: code.to_owned(),
            message: message.into(),
            hint: None,
            file: None,
            lines: None,
            span: None,
            excerpt: None,
            exit_code: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the lines to blame.
    #[must_use]
    pub fn at(mut self, lines: LineRange) -> Self {
        self.lines = Some(lines);
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.file, self.lines) {
            (Some(file), Some(lines)) => write!(f, "{file}:{lines}: {}", self.message),
            _ => f.write_str(&self.message),
        }
    }
}
