//! Builds.

use std::collections::{BTreeMap, BTreeSet};

use common::build::BuildState;
use common::outcome::LineRange;
use common::stage::{StageKind, StageState};
use common::{BuildId, Digest, Domain, Failure, Platform, ProjectName, StageId, Trust};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::options::{CommandOptions, NamedContextSource};
use super::output::OutputRequest;
use crate::Secret;

/// Where the Dockerfile and the files come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum BuildSource {
    /// Uploaded by the client.
    Context(ContextSource),
}

/// An uploaded context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ContextSource {
    /// Digest of the manifest; absent when there are no files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub manifest: Option<Digest>,
    /// The Dockerfile: it need not be part of the context.
    pub dockerfile: DockerfileSource,
    /// When the source of the context was made, in seconds since 1970: a repository's commit, a
    /// server's `Last-Modified`, the youngest file of an archive. `SOURCE_DATE_EPOCH` can name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_at: Option<i64>,
    /// The ignore file that the context was made with, in base64, for messages and checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_base64: Option<String>,
}

/// A Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DockerfileSource {
    /// Its name as the user gave it, for messages.
    pub name: String,
    /// Its bytes in base64 (standard alphabet, padded); at most 4 MiB decoded.
    pub content_base64: String,
}

/// Request body of `POST /v1/builds`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BuildRequest {
    /// The project; `default` when there is only one.
    #[schema(value_type = String)]
    pub project: ProjectName,
    /// `untrusted` for code that is not the project's own, as of a pull request from a fork: the build
    /// uses what trusted ones have stored, what it stores itself only untrusted ones use. It runs on
    /// workers that take such builds, and pushes nothing.
    #[serde(default, skip_serializing_if = "Trust::is_trusted")]
    #[schema(value_type = String)]
    pub trust: Trust,
    /// Where Dockerfile and files come from.
    pub source: BuildSource,
    /// Name of the stage to build; absent is the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `--build-arg`.
    #[serde(default)]
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Platforms of the result; none is that of the workers. Several make one image with a
    /// manifest for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub platforms: Vec<Platform>,
    /// `--build-context`, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contexts: BTreeMap<String, NamedContextSource>,
    /// `--secret`: values by name, for `RUN --mount=type=secret`. They are sealed at once, given to
    /// the workers that need them and forgotten when the build has ended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, Secret>,
    /// `--ssh`: names of the SSH agents that the client answers for while the build is not over, for
    /// `RUN --mount=type=ssh` and for repositories over ssh.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub agents: BTreeSet<String>,
    /// How commands run.
    #[serde(default)]
    pub commands: CommandOptions,
    /// Run every step, whatever the cache holds, and begin with empty cache mounts.
    #[serde(default)]
    pub no_cache: bool,
    /// The same for these stages only, and for what reads them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub no_cache_stages: Vec<String>,
    /// Ask the registry for every base image, however fresh the known answer is.
    #[serde(default)]
    pub pull: bool,
    /// What to make.
    #[serde(default)]
    pub outputs: Vec<OutputRequest>,
    /// Whether the build ends only when the digests of images are known that are pushed nowhere. If
    /// not, it ends with its last step, and they are known a little later.
    #[serde(default = "yes")]
    pub await_digests: bool,
    /// Several targets as one build, whose graph is one: what they share runs once. Then `target`,
    /// `build_args`, `labels`, `platforms`, `contexts` and `outputs` are theirs, and empty here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetRequest>,
    /// From -100 to 100: among the builds of the project, the higher goes first.
    #[serde(default)]
    pub priority: i16,
    /// The build fails when it has not ended after so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
    /// It fails when a worker has held one of its stages for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage_timeout_seconds: Option<u32>,
    /// Older builds of the project with the same key, such as a branch, are ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersede: Option<String>,
    /// What its stages need of a worker, each of them.
    #[serde(default, skip_serializing_if = "Requirements::is_none")]
    pub requires: Requirements,
}

impl BuildRequest {
    /// The scope of its cache.
    pub fn domain(&self) -> Domain {
        Domain { project: self.project.clone(), trust: self.trust }
    }
}

/// What the stages of a build need of a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Requirements {
    /// Labels that it has, all of them.
    pub labels: Vec<String>,
    /// Processors in thousandths that stay a stage's own as long as it runs.
    pub cpu_millis: u32,
    /// Memory in bytes that stays its own.
    pub memory_bytes: u64,
}

impl Requirements {
    /// Whether any worker will do.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

const fn yes() -> bool {
    true
}

/// One of several targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TargetRequest {
    /// What later targets and people call it.
    pub name: String,
    /// Where Dockerfile and files come from; absent is that of the build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<BuildSource>,
    /// Name of the stage to build; absent is the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// As of a build.
    #[serde(default)]
    pub build_args: BTreeMap<String, String>,
    /// As of a build.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// As of a build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub platforms: Vec<Platform>,
    /// As of a build, and results of earlier targets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contexts: BTreeMap<String, NamedContextSource>,
    /// As of a build; absent is how the build's commands run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<CommandOptions>,
    /// As of a build, for the stages of this target; what other targets share with it runs too.
    #[serde(default)]
    pub no_cache: bool,
    /// As of a build, beside those of the build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub no_cache_stages: Vec<String>,
    /// As of a build.
    #[serde(default)]
    pub outputs: Vec<OutputRequest>,
}

/// Where the time of a stage or step went, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TimingView {
    /// Ready, but no worker had taken it.
    pub queue_millis: u64,
    /// Holding no slot, for want of another stage's files.
    pub parked_millis: u64,
    /// Getting base layers, context files and slices.
    pub fetch_millis: u64,
    /// Running commands and copying files.
    pub run_millis: u64,
    /// Turning changes into layers.
    pub snapshot_millis: u64,
    /// Sending slices, layers and images.
    pub upload_millis: u64,
}

/// One step of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StepView {
    /// As in `[builder 2/5]`.
    pub number: u32,
    /// The instruction.
    pub display: String,
    /// Where it stands in the Dockerfile.
    #[schema(value_type = Object)]
    pub lines: LineRange,
    /// `pending`, `running`, `done`, `cached`, `failed`.
    pub state: String,
    /// Where its time went.
    pub timing: TimingView,
}

/// Bytes that a stage took from another one through the object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SliceTransferView {
    /// The stage that made the files.
    #[schema(value_type = String)]
    pub from: StageId,
    /// The paths that were asked for.
    pub paths: Vec<String>,
    /// Number of regular files in the slice.
    pub files: u64,
    /// Their bytes, uncompressed.
    pub content_bytes: u64,
    /// Bytes that went through the object store for it; 0 when producer and consumer shared a
    /// worker.
    pub transferred_bytes: u64,
}

/// One stage of a build, or one export of its target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StageView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: StageId,
    /// Name for people.
    pub label: String,
    /// Stage or export.
    #[schema(value_type = String)]
    pub kind: StageKind,
    /// Where it stands.
    #[schema(value_type = String)]
    pub state: StageState,
    /// Name of the worker that runs or ran it.
    pub worker: Option<String>,
    /// How often a worker took it.
    pub attempts: u32,
    /// Stages that it reads.
    #[schema(value_type = Vec<String>)]
    pub needs: Vec<StageId>,
    /// Its steps.
    pub steps: Vec<StepView>,
    /// Where its time went.
    pub timing: TimingView,
    /// What it took from other stages.
    pub transfers: Vec<SliceTransferView>,
    /// Bytes that it sent to the object store: slices and layers.
    pub uploaded_bytes: u64,
    /// When a worker took it last.
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub ended_at: Option<OffsetDateTime>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub failure: Option<Failure>,
    /// Why it waits, in words, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Whether its steps have ended: what is running or attached then is the storing of its layers.
    #[serde(default)]
    pub is_done: bool,
    /// The stage with the same key that runs, or ran, in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_to: Option<AttachedView>,
}

/// A stage that runs for others too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AttachedView {
    /// The build that it is of.
    #[schema(value_type = String)]
    pub build: BuildId,
    /// The stage.
    #[schema(value_type = String)]
    pub stage: StageId,
}

/// A name that a push did not move: tags move only forward, in the order of submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LeftName {
    /// The name with its tag.
    pub name: String,
    /// The build of the same project that was submitted later and has the tag.
    #[schema(value_type = String)]
    pub newer: BuildId,
}

/// What an export made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExportView {
    /// `image`, `oci`, `docker` or `tar`.
    pub kind: String,
    /// References that now name the image.
    pub names: Vec<String>,
    /// Names that were left at newer builds: there the image can be had by its digest only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<LeftName>,
    /// Digest of the manifest.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Digest of the image configuration: what Docker calls the image id.
    #[schema(value_type = String)]
    pub config_digest: Digest,
    /// Where to download the archive, for a short time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_url: Option<String>,
    /// Length of the archive in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_bytes: Option<u64>,
}

/// A build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BuildView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: BuildId,
    /// Its project.
    #[schema(value_type = String)]
    pub project: ProjectName,
    /// Where it stands.
    #[schema(value_type = String)]
    pub state: BuildState,
    /// Name of the Dockerfile.
    pub dockerfile: String,
    /// The target's name, if one was given.
    pub target: Option<String>,
    /// Its stages, producers first, exports last; empty before it is planned.
    pub stages: Vec<StageView>,
    /// What was made.
    pub exports: Vec<ExportView>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub failure: Option<Failure>,
    /// Notices of the planner, one line each.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// When it was accepted.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub ended_at: Option<OffsetDateTime>,
}

/// A page of builds, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BuildPage {
    /// The builds, without stages.
    pub builds: Vec<BuildView>,
    /// Pass it as `cursor` to go on; absent on the last page.
    pub next_cursor: Option<String>,
}
