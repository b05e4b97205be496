//! Steps: the instructions that change a stage's file system.

use serde::{Deserialize, Serialize};

use super::{ImageIndex, Mount, RunOptions, Security, SliceSelector, StageIndex};
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
    Run(Box<RunOp>),
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
    /// What is mounted, as written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// What it may do.
    #[serde(default)]
    pub security: Security,
    /// What options of the build say.
    #[serde(default)]
    pub options: RunOptions,
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
    /// Nothing: `--from=scratch`.
    Scratch,
    /// A named context of local files (`--build-context name=directory`).
    NamedContext {
        /// Its name, lower case.
        name: String,
    },
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
    /// What ADD fetches from elsewhere, written after `sources`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remotes: Vec<Remote>,
    /// Files given in the Dockerfile itself, written last.
    #[serde(default)]
    pub inline: Vec<InlineFile>,
    /// Absolute destination in the stage; a trailing slash means a directory.
    pub destination: String,
    /// `--chown`, expanded: `user[:group]`, names or numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chown: Option<String>,
    /// `--chmod`, expanded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chmod: Option<Chmod>,
    /// Which archives are unpacked.
    #[serde(default)]
    pub unpack: Unpack,
    /// `--link`: the files are a layer of their own that does not depend on what is below it. Links
    /// in the destination are not followed and missing parents are made anew.
    #[serde(default)]
    pub link: bool,
    /// `--parents`: sources keep their parent directories, from the root or from after `/./`.
    #[serde(default)]
    pub parents: bool,
    /// `--exclude`: patterns as in `.dockerignore`, relative to each source, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// Permission bits for what is copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chmod {
    /// All bits, up to 0o7777.
    Octal(u32),
    /// Changes as chmod(1) takes them, checked: `u=rwX,go=rX`.
    Symbolic(String),
}

/// Which archives ADD unpacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unpack {
    /// None: COPY, and `ADD --unpack=false`.
    #[default]
    Never,
    /// Local ones: ADD.
    Local,
    /// Remote ones too: `ADD --unpack`.
    All,
}

/// What ADD fetches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Remote {
    /// A file.
    Http {
        /// Where, without credentials.
        url: String,
        /// Its name in a directory.
        name: String,
        /// What it has to be.
        checksum: Option<Digest>,
    },
    /// A repository's files at a commit.
    Git {
        /// Where, without credentials.
        url: String,
        /// The branch, tag or commit as written; the default branch when absent.
        reference: Option<String>,
        /// The full commit that it was at when the build was planned.
        commit: String,
        /// Only this directory of it, relative.
        subdirectory: Option<String>,
        /// Whether `.git` stays.
        keep_git_dir: bool,
        /// Whether submodules are fetched.
        submodules: bool,
    },
}

/// The agent that git over ssh uses, as in BuildKit.
pub const DEFAULT_AGENT: &str = "default";

/// Whether the address of a repository is one over ssh: `ssh://…`, or `git@host:path`.
pub fn is_over_ssh(url: &str) -> bool {
    url.starts_with("ssh://") || (!url.contains("://") && url.contains('@'))
}

impl Remote {
    /// Whether it is fetched with the client's SSH agent.
    pub fn wants_agent(&self) -> bool {
        matches!(self, Self::Git { url, .. } if is_over_ssh(url))
    }

    /// Where what is copied lies within what was fetched: a file by its name, a directory of a
    /// repository; all of a repository has none.
    pub fn path(&self) -> &str {
        match self {
            Self::Http { name, .. } => name,
            Self::Git { subdirectory, .. } => subdirectory.as_deref().unwrap_or(""),
        }
    }
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

impl RunOp {
    /// A command of root in `/`, with nothing around it.
    pub fn new(argv: Vec<String>) -> Self {
        Self {
            argv,
            env: Vec::new(),
            unkeyed_env: Vec::new(),
            working_dir: "/".to_owned(),
            user: String::new(),
            network: Network::Default,
            script: None,
            mounts: Vec::new(),
            security: Security::Sandbox,
            options: RunOptions::default(),
        }
    }
}

impl CopyOp {
    /// A COPY without flags.
    pub fn new(from: CopyFrom, sources: Vec<String>, destination: impl Into<String>) -> Self {
        Self {
            from,
            sources,
            remotes: Vec::new(),
            inline: Vec::new(),
            destination: destination.into(),
            chown: None,
            chmod: None,
            unpack: Unpack::Never,
            link: false,
            parents: false,
            exclude: Vec::new(),
        }
    }
}

impl Step {
    /// Whose files this step reads: what a copy copies from, what the mounts of a command show.
    pub fn sources(&self) -> impl Iterator<Item = &CopyFrom> {
        let (copied, mounts) = match &self.op {
            Op::Copy(copy) => (Some(&copy.from), &[][..]),
            Op::Run(run) => (None, &run.mounts[..]),
            Op::Workdir(_) => (None, &[][..]),
        };
        copied.into_iter().chain(mounts.iter().filter_map(Mount::from))
    }

    /// The slices of other stages that this step reads.
    pub fn input_slices(&self) -> impl Iterator<Item = (StageIndex, &SliceSelector)> {
        self.sources().filter_map(|from| match from {
            CopyFrom::Stage { stage, selector } => Some((*stage, selector)),
            CopyFrom::Context
            | CopyFrom::Scratch
            | CopyFrom::NamedContext { .. }
            | CopyFrom::Image { .. } => None,
        })
    }
}
