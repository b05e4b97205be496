//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use common::ProjectName;

/// Builds Dockerfiles on a farm.
#[derive(Debug, Parser)]
#[command(name = "slipway", version)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) server: Server,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which farm.
#[derive(Debug, Clone, Args)]
pub(crate) struct Server {
    /// Address of the coordinator.
    #[arg(long, global = true, env = "SLIPWAY_SERVER")]
    pub(crate) server: Option<String>,
    /// Token for it.
    #[arg(long, global = true, env = "SLIPWAY_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a whole farm on this machine.
    Up(Up),
    /// A worker of `up`.
    #[command(hide = true)]
    Worker {
        /// Its configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Build a Dockerfile.
    Build(Box<Build>),
    /// Build the targets of bake files or compose files as one build.
    Bake(Box<Bake>),
    /// Say what a build would do, without doing it. Takes the flags of build; outputs are not made.
    Plan(Box<Plan>),
    /// Show a build.
    Show {
        /// Its id, the beginning of it, or `last`.
        build: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the log of a build.
    Logs {
        /// Its id, the beginning of it, or `last`.
        build: String,
        /// Go on until the build has ended.
        #[arg(short, long)]
        follow: bool,
        /// Only this stage.
        #[arg(long)]
        stage: Option<String>,
    },
    /// End a build.
    Cancel {
        /// Its id, the beginning of it, or `last`.
        build: String,
    },
    /// Run again what failed of a build, and what was cancelled; what has ended well is kept.
    Retry {
        /// Its id, the beginning of it, or `last`.
        build: String,
        /// How progress is shown.
        #[arg(long, value_enum, default_value_t = Progress::Auto)]
        progress: Progress,
    },
    /// Delete what a build has made, for good: later builds run anew. What others need stays.
    Purge {
        /// Its id, the beginning of it, or `last`.
        build: String,
    },
    /// List the projects and what they take, or change their settings.
    Projects {
        #[command(subcommand)]
        command: Option<ProjectsCommand>,
    },
    /// Say why the steps of a build ran: what had changed since the build before.
    Why {
        /// Its id, the beginning of it, or `last`.
        #[arg(default_value = "last")]
        build: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the newest builds.
    Builds,
    /// List the workers.
    Workers,
}

/// What to do with projects.
#[derive(Debug, Subcommand)]
pub(crate) enum ProjectsCommand {
    /// Change what is given; the rest stays.
    Set(ProjectSet),
}

/// `slipway projects set`.
#[derive(Debug, Args)]
pub(crate) struct ProjectSet {
    /// The project.
    pub(crate) name: ProjectName,
    /// Its part of the workers against the parts of the others; usual is 100.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) weight: Option<u32>,
    /// Most bytes in the object store; 0 is no limit.
    #[arg(long)]
    pub(crate) cache_bytes: Option<u64>,
    /// Days that what is cached is kept after its last use.
    #[arg(long)]
    pub(crate) cache_days: Option<u32>,
    /// Days that logs are kept.
    #[arg(long)]
    pub(crate) log_days: Option<u32>,
    /// Days that builds are kept.
    #[arg(long)]
    pub(crate) build_days: Option<u32>,
}

/// `slipway up`.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// How many workers.
    #[arg(long, default_value_t = 1)]
    pub(crate) workers: u32,
    /// Stages that each worker runs at once; default: as many as there are processors.
    #[arg(long)]
    pub(crate) slots: Option<u32>,
    /// Where everything is kept; default: /var/lib/slipway, or ~/.local/share/slipway.
    #[arg(long, env = "SLIPWAY_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where the coordinator listens; the registry and the object store use the same interface.
    #[arg(long, default_value = "127.0.0.1:7878")]
    pub(crate) listen: SocketAddr,
    /// A file with sections [runtime], [fetch], [retention], [registries.…] and [log].
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// `tty` on a terminal, else `plain`.
    Auto,
    /// One line a stage, redrawn.
    Tty,
    /// Lines, for logs.
    Plain,
    /// One JSON object a line.
    Rawjson,
    /// Only the result.
    Quiet,
}

/// `docker buildx bake`'s flags.
#[derive(Debug, Args)]
pub(crate) struct Bake {
    /// Targets and groups, or patterns of them; default: default.
    pub(crate) targets: Vec<String>,
    /// A bake file in HCL or JSON, or a compose file; may be repeated: later ones win. Default: those
    /// of $BUILDX_BAKE_FILE, else compose.yaml, docker-compose.yml, docker-bake.json,
    /// docker-bake.hcl and their overrides, as far as they are there. - is standard input.
    #[arg(short, long)]
    pub(crate) file: Vec<PathBuf>,
    /// Another value: TARGET.KEY[.NAME]=VALUE, += adds to a list, * is every target; may be repeated.
    #[arg(long)]
    pub(crate) set: Vec<String>,
    /// The value of a variable: NAME=VALUE, before that of the environment; may be repeated.
    #[arg(long)]
    pub(crate) var: Vec<String>,
    /// No meaning here: what a build may do the operator says.
    #[arg(long, value_delimiter = ',')]
    pub(crate) allow: Vec<String>,
    /// Only false: there are no attestations yet.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) provenance: Option<String>,
    /// Only false: there are no attestations yet.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) sbom: Option<String>,
    /// Show what would be built, as JSON, and build nothing.
    #[arg(long)]
    pub(crate) print: bool,
    /// Push the images under their names.
    #[arg(long)]
    pub(crate) push: bool,
    /// Load the images into the Docker engine of this machine.
    #[arg(long)]
    pub(crate) load: bool,
    /// Run every step.
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Ask the registries for every base image.
    #[arg(long)]
    pub(crate) pull: bool,
    /// Write digests and names into this file, as JSON, by target.
    #[arg(long)]
    pub(crate) metadata_file: Option<PathBuf>,
    /// How progress is shown.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) progress: Progress,
    /// The project that the build belongs to.
    #[arg(long, env = "SLIPWAY_PROJECT", default_value = "default")]
    pub(crate) project: String,
    #[command(flatten)]
    pub(crate) placing: Placing,
}

/// `docker buildx build`'s flags.
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// What COPY and ADD read from: a directory, a git address with #REF:DIRECTORY, the URL of an
    /// archive or of a Dockerfile; - is an archive or a Dockerfile on standard input.
    pub(crate) context: PathBuf,
    /// The Dockerfile; default: Dockerfile in the context; - is standard input; with a git address
    /// or an archive a path in it; a URL of one.
    #[arg(short, long)]
    pub(crate) file: Option<PathBuf>,
    /// Name of the image; may be repeated.
    #[arg(short, long)]
    pub(crate) tag: Vec<String>,
    /// The stage to build.
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// A build argument: NAME=VALUE, or NAME to take it from the environment; may be repeated.
    #[arg(long)]
    pub(crate) build_arg: Vec<String>,
    /// A label for the image: NAME=VALUE; may be repeated.
    #[arg(long)]
    pub(crate) label: Vec<String>,
    /// Platforms of the image: one image with a manifest for each; may be repeated.
    #[arg(long, value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
    /// What takes the place of a stage or an image: NAME=DIRECTORY, NAME=docker-image://REFERENCE,
    /// NAME=oci-layout://DIRECTORY[:TAG][@DIGEST] with an image, NAME=URL of a repository or a file; NAME::PLATFORM for one platform; may be repeated.
    #[arg(long)]
    pub(crate) build_context: Vec<String>,
    /// A secret for RUN --mount=type=secret: id=NAME,src=FILE or id=NAME,env=VARIABLE; may be
    /// repeated.
    #[arg(long)]
    pub(crate) secret: Vec<String>,
    /// An SSH agent that the build may use, for RUN --mount=type=ssh and repositories over ssh:
    /// default (that of SSH_AUTH_SOCK), NAME=SOCKET or NAME=KEYFILE[,KEYFILE]; may be repeated.
    #[arg(long)]
    pub(crate) ssh: Vec<String>,
    /// What commands reach that do not say: default, none, host.
    #[arg(long)]
    pub(crate) network: Option<String>,
    /// A line for /etc/hosts: NAME:ADDRESS; may be repeated.
    #[arg(long)]
    pub(crate) add_host: Vec<String>,
    /// Size of /dev/shm, such as 64m.
    #[arg(long)]
    pub(crate) shm_size: Option<String>,
    /// A limit of processes: NAME=SOFT[:HARD]; may be repeated.
    #[arg(long)]
    pub(crate) ulimit: Vec<String>,
    /// Run every step.
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Run every step of these stages, and of what reads them; may be repeated.
    #[arg(long, value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// Ask the registries for every base image.
    #[arg(long)]
    pub(crate) pull: bool,
    /// Push the image under its names.
    #[arg(long)]
    pub(crate) push: bool,
    /// Load the image into the Docker engine of this machine.
    #[arg(long)]
    pub(crate) load: bool,
    /// What to make: type=image,name=NAME,push=true or type=oci,dest=FILE, and more (docs/outputs.md);
    /// may be repeated.
    #[arg(short, long)]
    pub(crate) output: Vec<String>,
    /// An annotation for the image: [manifest:|index:|manifest-descriptor:|index-descriptor:]KEY=VALUE;
    /// may be repeated.
    #[arg(long)]
    pub(crate) annotation: Vec<String>,
    /// Look for what is unwise in the Dockerfile, and build nothing; short for --call=check.
    #[arg(long)]
    pub(crate) check: bool,
    /// What to do: build, check, outline (what the target takes), targets (what can be built);
    /// with ,format=json for programs.
    #[arg(long)]
    pub(crate) call: Option<String>,
    /// Write the image id into this file.
    #[arg(long)]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write digests and names into this file, as JSON.
    #[arg(long)]
    pub(crate) metadata_file: Option<PathBuf>,
    /// How progress is shown.
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) progress: Progress,
    /// Print only the image id.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// The project that the build belongs to.
    #[arg(long, env = "SLIPWAY_PROJECT", default_value = "default")]
    pub(crate) project: String,
    #[command(flatten)]
    pub(crate) placing: Placing,
    #[command(flatten)]
    pub(crate) needless: Needless,
    #[command(flatten)]
    pub(crate) later: Later,
}

/// The build's place among others.
#[derive(Debug, Clone, Args)]
pub(crate) struct Placing {
    /// From -100 to 100: among the builds of the project, the higher goes first.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true,
        value_parser = clap::value_parser!(i16).range(-100..=100))]
    pub(crate) priority: i16,
    /// End the build when it has not ended after so long: 90s, 30m, 2h.
    #[arg(long)]
    pub(crate) timeout: Option<String>,
    /// End it when a worker has held one of its stages for so long.
    #[arg(long)]
    pub(crate) stage_timeout: Option<String>,
    /// End older builds of the project with the same key, such as a branch.
    #[arg(long, value_name = "KEY")]
    pub(crate) supersede: Option<String>,
    /// What each stage needs of its worker: cpus=NUMBER, memory=SIZE, or a label of workers; may be
    /// repeated.
    #[arg(long)]
    pub(crate) require: Vec<String>,
    /// The code is a stranger's, as of a pull request from a fork: the build uses what trusted builds
    /// have stored, stores nothing for them, and pushes nothing.
    #[arg(long)]
    pub(crate) untrusted: bool,
}

/// Flags of `docker buildx build` that ask for what is so anyway.
#[derive(Debug, Args)]
pub(crate) struct Needless {
    /// No meaning here: the farm has one cache for all.
    #[arg(long)]
    pub(crate) cache_from: Vec<String>,
    /// No meaning here: the farm has one cache for all.
    #[arg(long)]
    pub(crate) cache_to: Vec<String>,
    /// Only false: there are no attestations yet.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) provenance: Option<String>,
    /// Only false: there are no attestations yet.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) sbom: Option<String>,
    /// Only type=…,disabled=true: there are no attestations yet.
    #[arg(long)]
    pub(crate) attest: Vec<String>,
    /// What commands may ask for: network.host, security.insecure. Whether they get it the operator
    /// says.
    #[arg(long, value_delimiter = ',')]
    pub(crate) allow: Vec<String>,
}

/// `slipway plan`.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    pub(crate) build: Build,
    /// What each step's key is made of.
    #[arg(long)]
    pub(crate) keys: bool,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `docker buildx build` that are refused, each by name.
#[derive(Debug, Args)]
#[command(next_help_heading = "Not supported (refused)")]
pub(crate) struct Later {
    #[arg(long, hide = true)]
    cgroup_parent: Option<String>,
    #[arg(long, hide = true)]
    builder: Option<String>,
}

impl Later {
    /// The first of these flags that was given, and why it is refused.
    pub(crate) fn first(&self) -> Option<(&'static str, &'static str)> {
        let farm = "has no meaning: --server names the farm";
        let limits = "is not supported: groups and limits of commands are the worker's settings, \
                      [runtime] in its configuration";
        let given = [
            (self.cgroup_parent.is_some(), "--cgroup-parent", limits),
            (self.builder.is_some(), "--builder", farm),
        ];
        given.into_iter().find(|(is_given, ..)| *is_given).map(|(_, name, why)| (name, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_are_not_built_are_noticed() {
        for flag in ["--builder=x", "--cgroup-parent=x"] {
            let arguments = Arguments::try_parse_from(["slipway", "build", flag, "."]).unwrap();
            let Command::Build(build) = arguments.command else { panic!() };
            let name = build.later.first().map(|(name, _)| name);
            assert_eq!(name, flag.split('=').next(), "{flag}");
        }
        let arguments = Arguments::try_parse_from(["slipway", "build", "-t", "a", "."]).unwrap();
        let Command::Build(build) = arguments.command else { panic!() };
        assert_eq!(build.later.first(), None);
    }
}
