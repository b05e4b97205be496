//! Instructions as types.

use common::outcome::LineRange;
use common::plan::{Network, Security};

use crate::source::Heredoc;

/// Every keyword.
pub(super) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// An instruction with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spanned {
    pub(crate) instruction: Instruction,
    pub(crate) lines: LineRange,
    /// The instruction as written, on one line.
    pub(crate) text: String,
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CommandForm {
    /// JSON: no shell.
    Exec(Vec<String>),
    /// Text for the shell.
    Shell(String),
}

/// An instruction; nothing in it is expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Instruction {
    From { image: String, platform: Option<String>, name: Option<String> },
    Arg(Vec<(String, Option<String>)>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Run(Run),
    Copy(Copy),
    Cmd(CommandForm),
    Entrypoint(CommandForm),
    Workdir(String),
    User(String),
    Expose(Vec<String>),
    Volume(Vec<String>),
    StopSignal(String),
    Shell(Vec<String>),
    Healthcheck(Option<Health>),
    OnBuild(String),
    Maintainer(String),
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) command: CommandForm,
    pub(crate) heredocs: Vec<Heredoc>,
    pub(crate) network: Network,
    pub(crate) security: Security,
    /// The values of `--mount`.
    pub(crate) mounts: Vec<String>,
}

/// COPY and ADD.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Copy {
    pub(crate) is_add: bool,
    pub(crate) sources: Vec<String>,
    pub(crate) heredocs: Vec<Heredoc>,
    pub(crate) destination: String,
    pub(crate) from: Option<String>,
    pub(crate) chown: Option<String>,
    pub(crate) chmod: Option<String>,
    pub(crate) link: bool,
    /// COPY only.
    pub(crate) parents: bool,
    pub(crate) exclude: Vec<String>,
    /// ADD only, like the next two.
    pub(crate) checksum: Option<String>,
    pub(crate) keep_git_dir: Option<bool>,
    pub(crate) unpack: Option<bool>,
}

/// HEALTHCHECK CMD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) command: CommandForm,
    /// By flag name, in nanoseconds; `retries` is a number.
    pub(crate) options: Vec<(String, i64)>,
}
