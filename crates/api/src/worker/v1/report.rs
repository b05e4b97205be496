//! What a worker tells of a stage it holds.

use common::image::Layer;
use common::plan::SliceSelector;
use common::{Digest, Failure, Lease, StageId};
use serde::{Deserialize, Serialize};

use crate::public::v1::{LeftName, LogLine, TimingView};

/// Body of `POST /worker/v1/logs`. Chunks of a lease count from 0; a chunk that was sent before
/// is accepted and ignored. A chunk holds at most 256 KiB of text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogChunk {
    /// The stage.
    #[schema(value_type = Object)]
    pub lease: Lease,
    /// Number of the chunk.
    pub chunk: u32,
    /// Its lines, in order.
    pub lines: Vec<LogLine>,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// It has begun.
    Running,
    /// It has ended well; its layer may still be on its way.
    Done,
    /// Its layer is in the object store: the step may become a cache record.
    Stored,
    /// It has failed.
    Failed,
}

/// Body of `POST /worker/v1/steps`. Repeating a report changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StepsReport {
    /// The stage.
    #[schema(value_type = Object)]
    pub lease: Lease,
    /// Steps of it, each once; at most 1000.
    pub steps: Vec<StepReport>,
}

/// Where a step stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StepReport {
    /// Number of the step, as in the plan.
    pub number: u32,
    /// Where it stands.
    pub state: StepState,
    /// Where its time went so far.
    pub timing: TimingView,
    /// Its layer; present from `stored` on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub layer: Option<Layer>,
}

/// Body of `POST /worker/v1/slices`: a slice is in the object store, others may go on. Sent as
/// soon as the stage's last step has ended, before its layers are uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SliceReport {
    /// The stage that made it.
    #[schema(value_type = Object)]
    pub lease: Lease,
    /// Which files were asked for.
    #[schema(value_type = Object)]
    pub selector: SliceSelector,
    /// Digest of the encoded manifest.
    #[schema(value_type = String)]
    pub manifest: Digest,
    /// Length of the encoded manifest in bytes.
    pub manifest_bytes: u64,
    /// Its packs: they are kept as long as it is.
    #[serde(default)]
    pub packs: Vec<StoredPack>,
    /// Number of regular files.
    pub files: u64,
    /// Their bytes, uncompressed.
    pub content_bytes: u64,
    /// Bytes of its packs and manifest in the object store.
    pub stored_bytes: u64,
    /// Digest of what it holds, owners included, without times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub content: Option<Digest>,
    /// The encoded manifest in base64 when it is shorter than 64 KiB: it then rides inside the job
    /// message and saves the consumer a round trip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline_manifest: Option<String>,
}

/// A pack in the object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StoredPack {
    /// Its digest.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
}

/// Body of `POST /worker/v1/done`: all steps of a stage have ended, their log and its slices have
/// arrived. Its layers follow, one by one, and then its result. Repeating it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DoneReport {
    /// The stage.
    #[schema(value_type = Object)]
    pub lease: Lease,
    /// Where the time of the attempt went so far.
    pub timing: TimingView,
    /// The slices that it read.
    #[serde(default)]
    pub slices_read: Vec<SliceUse>,
    /// Bytes that it sent to the object store so far.
    #[serde(default)]
    pub uploaded_bytes: u64,
}

/// What an export made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ExportResult {
    /// Position in [`super::ExportJob::targets`].
    pub target: u32,
    /// Digest of the manifest, or of the index of several.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Digest of the configuration: of the first image, where there are several.
    #[schema(value_type = String)]
    pub config_digest: Digest,
    /// Names that were left at newer builds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<LeftName>,
    /// The uploaded archive: an object of kind `export`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub archive: Option<Digest>,
    /// Its length in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_bytes: Option<u64>,
}

/// How a stage ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum StageOutcome {
    /// All of it is done and stored.
    Succeeded {
        /// For a stage: its layers, lowest first, those of its base included.
        #[serde(default)]
        #[schema(value_type = Vec<Object>)]
        layers: Vec<Layer>,
        /// For an export: one result a target.
        #[serde(default)]
        exports: Vec<ExportResult>,
    },
    /// It failed.
    Failed {
        /// Why.
        #[schema(value_type = Object)]
        failure: Failure,
        /// Number of the step that failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<u32>,
    },
    /// The worker gives it back unharmed: it drains, or its disk is full.
    HandedBack {
        /// Why, for people.
        reason: String,
    },
}

/// A slice that the stage read, and what that cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SliceUse {
    /// The producer.
    #[schema(value_type = String)]
    pub stage: StageId,
    /// Which files.
    #[schema(value_type = Object)]
    pub selector: SliceSelector,
    /// Number of regular files in the slice.
    pub files: u64,
    /// Their bytes, uncompressed.
    pub content_bytes: u64,
    /// Bytes that came through the object store; 0 when the producer ran here.
    pub transferred_bytes: u64,
}

/// Body of `POST /worker/v1/result`. The same result twice is accepted and changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ResultReport {
    /// The stage.
    #[schema(value_type = Object)]
    pub lease: Lease,
    /// How it ended.
    pub outcome: StageOutcome,
    /// Where the time of the attempt went; the queue is the coordinator's to know.
    pub timing: TimingView,
    /// The slices that it read.
    #[serde(default)]
    pub slices_read: Vec<SliceUse>,
    /// Bytes that it sent to the object store.
    #[serde(default)]
    pub uploaded_bytes: u64,
}
