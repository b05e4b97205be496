//! Steps: the instructions that change a stage's file system.

use serde::{Deserialize, Serialize};

use super::{ImageIndex, SliceSelector, StageIndex};
use crate::Digest;
use crate::cache_key::KeyPart;
use crate::outcome::LineRange;

/// One instruction that makes a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Number for people, as in `[builder 2/5]`: counts FROM as 1.
    pub number: u32,
    /// Where it stands in the Dockerfile.
    pub lines: LineRange,
    /// The instruction for people, one line.
    pub display: String,
    /// What to do.
    pub op: Op,
    /// Its definition key.
    pub key: Digest,
    /// What the key is made of.
    pub key_parts: Vec<KeyPart>,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Op {
    /// Runs a command.
    Run(RunOp),
    /// Copies files: `COPY`, and `ADD` of local files.
    Copy(CopyOp),
    /// Makes the working directory.
    Workdir(WorkdirOp),
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOp {
    /// The command with its shell, if it has one. Never empty.
    pub argv: Vec<String>,
    /// Its environment, in order, names unique.
    pub env: Vec<(String, String)>,
    /// Variables that reach the command but no key, history or image: proxies.
    #[serde(default)]
    pub unkeyed_env: Vec<(String, String)>,
    /// Working directory, absolute.
    pub working_dir: String,
    /// `user[:group]` as written; empty is root.
    pub user: String,
    /// What it reaches.
    pub network: Network,
    /// A script to run, when the whole argument was a heredoc with a `#!` line: it is put as an
    /// executable file at the path that `argv` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<InlineFile>,
}

/// What a command reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The internet, but nothing of the worker or the farm.
    #[default]
    Default,
    /// Its own loopback only.
    None,
    /// The worker's own network; only where the operator allows it.
    Host,
}

/// Where the files of a copy come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum CopyFrom {
    /// The build context.
    Context,
    /// Another stage: only the slice that `selector` names is there.
    Stage {
        /// The producer.
        stage: StageIndex,
        /// Which files.
        selector: SliceSelector,
    },
    /// An image that is no stage.
    Image {
        /// Which image.
        image: ImageIndex,
    },
}

/// A copy. The rules are those of BuildKit's COPY and ADD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOp {
    /// Where `sources` are looked up.
    pub from: CopyFrom,
    /// Paths and wildcard patterns, absolute in the source (a leading slash, no `..`); a trailing
    /// slash is kept.
    pub sources: Vec<String>,
    /// Files given in the Dockerfile itself, written after `sources`.
    #[serde(default)]
    pub inline: Vec<InlineFile>,
    /// Absolute destination in the stage; a trailing slash means a directory.
    pub destination: String,
    /// `--chown`, expanded: `user[:group]`, names or numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chown: Option<String>,
    /// `--chmod`, expanded: octal bits up to 0o7777.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chmod: Option<u32>,
    /// Whether local archives are unpacked: `ADD`.
    #[serde(default)]
    pub unpack: bool,
}

/// A file whose content stands in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineFile {
    /// Its name: for COPY the heredoc's delimiter, for RUN an absolute path.
    pub name: String,
    /// Its content, expanded.
    pub content: String,
}

/// A working directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkdirOp {
    /// Absolute path; never `/`, which needs no step.
    pub path: String,
    /// `user[:group]` that owns what has to be made; empty is root.
    pub owner: String,
}

impl Step {
    /// The stage that this step copies from.
    pub fn input_stage(&self) -> Option<StageIndex> {
        match &self.op {
            Op::Copy(CopyOp { from: CopyFrom::Stage { stage, .. }, .. }) => Some(*stage),
            _ => None,
        }
    }
}
