//! The state exchange.

use std::collections::BTreeMap;

use common::image::{ImageDocument, Layer, ResolvedImage};
use common::plan::{PlannedStage, SliceSelector, StageIndex};
use common::{BuildId, Digest, Lease, ProjectName, SessionId, StageId, Trust, WorkerId};
use serde::{Deserialize, Serialize};

use crate::Secret;
use crate::public::v1::{ImageOptions, LayerCompression};

/// What a held stage is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum HeldPhase {
    /// It holds a slot.
    Running,
    /// It holds its root file system but no slot, until these slices are there.
    Parked {
        /// What it waits for.
        #[schema(value_type = Vec<Object>)]
        waiting_for: Vec<SliceWish>,
    },
    /// Its steps have ended; layers are on their way. It holds no slot.
    Uploading,
}

/// A slice that a stage waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SliceWish {
    /// The producer.
    #[schema(value_type = String)]
    pub stage: StageId,
    /// Which files.
    #[schema(value_type = Object)]
    pub selector: SliceSelector,
}

/// One stage that a worker holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HeldStage {
    /// Under which lease.
    #[schema(value_type = Object)]
    pub lease: Lease,
    /// What it is doing.
    pub phase: HeldPhase,
}

/// Body of `POST /worker/v1/sync`: all that the worker is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SyncRequest {
    /// Who.
    #[schema(value_type = String)]
    pub worker: WorkerId,
    /// Which run of the process. A new session hands back all that the old one held.
    #[schema(value_type = String)]
    pub session: SessionId,
    /// Stages that it can run at once.
    pub slots: u32,
    /// Slots that are free.
    pub free_slots: u32,
    /// It wants no more work.
    pub draining: bool,
    /// All that it holds.
    pub held: Vec<HeldStage>,
    /// How long the answer may be held back when there is nothing to say, in milliseconds.
    pub wait_millis: u64,
}

/// A slice that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SliceInput {
    /// The producer.
    #[schema(value_type = String)]
    pub stage: StageId,
    /// Which files.
    #[schema(value_type = Object)]
    pub selector: SliceSelector,
    /// Digest of the encoded manifest.
    #[schema(value_type = String)]
    pub manifest: Digest,
    /// Number of regular files.
    #[serde(default)]
    pub files: u64,
    /// Their bytes, uncompressed.
    #[serde(default)]
    pub content_bytes: u64,
    /// The encoded manifest in base64, when it is small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline_manifest: Option<String>,
}

/// Slices that a held stage may now read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InputReady {
    /// The consumer.
    #[schema(value_type = Object)]
    pub lease: Lease,
    /// The slices.
    pub slices: Vec<SliceInput>,
}

/// Why a stage has to be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AbandonReason {
    /// Its build was cancelled.
    Cancelled,
    /// Its build has failed elsewhere.
    BuildFailed,
    /// The lease is no longer this worker's.
    Superseded,
}

/// A stage to drop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Abandon {
    /// Which one.
    #[schema(value_type = Object)]
    pub lease: Lease,
    /// Why.
    pub reason: AbandonReason,
}

/// A stage to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StageJob {
    /// The stage as planned.
    #[schema(value_type = Object)]
    pub stage: PlannedStage,
    /// Ids of the build's stages by their position in the plan.
    #[schema(value_type = Vec<Object>)]
    pub stage_ids: Vec<(StageIndex, StageId)>,
    /// The images that its base and its steps name, by their position in the plan.
    #[schema(value_type = Vec<Object>)]
    pub images: Vec<(u32, ResolvedImage)>,
    /// The root file system to start from, lowest layer first: the base's layers and those of all
    /// steps that were found in the cache.
    #[schema(value_type = Vec<Object>)]
    pub base_layers: Vec<Layer>,
    /// A stage that has ended on this worker and whose layers are not stored yet: what it left is the
    /// root file system to start from, and `base_layers` is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub unstored_base: Option<StageId>,
    /// Number of the first step to run; steps before it are in `base_layers`. Greater than every
    /// step's number when only a slice is wanted.
    pub first_step: u32,
    /// Digest of the context's manifest.
    #[schema(value_type = Option<String>)]
    pub context: Option<Digest>,
    /// Digests of the manifests of the named contexts that its steps read, by name.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub contexts: BTreeMap<String, Digest>,
    /// The secrets that its commands may see, by name.
    #[serde(default)]
    pub secrets: BTreeMap<String, Secret>,
    /// The agents of the client that its commands, and git, may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<String>,
    /// Whether cache mounts begin empty: the build was asked for without cache.
    #[serde(default)]
    pub fresh_caches: bool,
    /// Whose code it is: cache mounts of trusted builds are not shown to untrusted ones, nor are
    /// private networks.
    #[serde(default, skip_serializing_if = "Trust::is_trusted")]
    #[schema(value_type = String)]
    pub trust: Trust,
    /// Whether steps may be looked up again, once it is known what they read.
    #[serde(default)]
    pub looks_up: bool,
    /// Whether the base was made in this build: then that is so for the first step, too.
    #[serde(default)]
    pub base_is_new: bool,
    /// How the layers are compressed that it makes.
    #[serde(default)]
    pub compression: LayerCompression,
    /// The slices to make when the last step has ended.
    #[schema(value_type = Vec<Object>)]
    pub make_slices: Vec<SliceSelector>,
    /// Slices that are there already; the others come with [`InputReady`].
    pub inputs: Vec<SliceInput>,
}

/// One thing to make of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum ExportTarget {
    /// Push to registries.
    Push {
        /// References in normal form.
        names: Vec<String>,
        /// Under no tag.
        #[serde(default)]
        by_digest: bool,
        /// What the image is like.
        #[serde(default)]
        options: ImageOptions,
    },
    /// An OCI image layout in a tar file, as an object of kind `export`.
    OciArchive {
        /// References for the archive's index.
        names: Vec<String>,
        /// What the image is like.
        #[serde(default)]
        options: ImageOptions,
    },
    /// The same with what `docker load` reads; of one platform.
    DockerArchive {
        /// References that the loaded image gets.
        names: Vec<String>,
        /// What the image is like.
        #[serde(default)]
        options: ImageOptions,
    },
    /// The root file system as one tar file, an object too.
    RootFs {
        /// Whether each platform's is in a directory of its own.
        #[serde(default)]
        split: bool,
    },
    /// Only compute the digests: the image stays in the cache.
    DigestOnly {
        /// What the image is like.
        #[serde(default)]
        options: ImageOptions,
    },
}

/// An image to export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExportJob {
    /// The images, one a platform, at least one.
    pub images: Vec<ExportImage>,
    /// `SOURCE_DATE_EPOCH` in seconds, where there is one.
    #[serde(default)]
    pub source_date_epoch: Option<i64>,
    /// What to make of them.
    pub targets: Vec<ExportTarget>,
}

/// An image for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExportImage {
    /// Layers, lowest first, those of the base included.
    #[schema(value_type = Vec<Object>)]
    pub layers: Vec<Layer>,
    /// The configuration, complete: history and diff ids included.
    #[schema(value_type = Object)]
    pub document: ImageDocument,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Job {
    /// Run a stage.
    Stage(Box<StageJob>),
    /// Export an image.
    Export(Box<ExportJob>),
}

/// One stage given to the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Assignment {
    /// Under which lease.
    #[schema(value_type = Object)]
    pub lease: Lease,
    /// Its build.
    #[schema(value_type = String)]
    pub build: BuildId,
    /// Its project: the scope of every object name.
    #[schema(value_type = String)]
    pub project: ProjectName,
    /// Name for people, such as `builder`.
    pub label: String,
    /// Name of the Dockerfile, for messages.
    pub dockerfile: String,
    /// What to do.
    pub job: Job,
}

/// Answer of `sync`: all that the worker should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SyncResponse {
    /// Stages to begin. Repeated until the worker lists them as held.
    pub assignments: Vec<Assignment>,
    /// Stages to drop at once.
    pub abandon: Vec<Abandon>,
    /// Slices that have arrived for parked stages.
    pub inputs: Vec<InputReady>,
    /// Take no more work, finish, and stop.
    pub drain: bool,
    /// The worker counts as lost when it has not called for this long, in milliseconds. It stops
    /// publishing before that.
    pub lost_after_millis: u64,
}
