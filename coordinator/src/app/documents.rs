//! What stands in the `plan` column of a stage.

use std::collections::BTreeMap;

use api::public::v1::LayerCompression;
use api::worker::v1::ExportTarget;
use common::image::{ImageDocument, Layer, ResolvedImage};
use common::plan::{PlannedStage, StageIndex};
use common::{Digest, StageId, Trust};
use serde::{Deserialize, Serialize};

/// A stage's plan with what its job message needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StageDocument {
    pub(crate) stage: PlannedStage,
    pub(crate) stage_ids: Vec<(StageIndex, StageId)>,
    pub(crate) images: Vec<(u32, ResolvedImage)>,
    /// Manifests of the named contexts that it reads.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Digest>,
    /// Names of the secrets that its commands may see.
    #[serde(default)]
    pub(crate) secrets: Vec<String>,
    /// Names of the client's agents that its commands, and git, may use. The store reads this too.
    #[serde(default)]
    pub(crate) agents: Vec<String>,
    /// Keys of the stages that it reads.
    #[serde(default)]
    pub(crate) input_keys: Vec<(StageIndex, Digest)>,
    /// Whether its steps may be looked up by what they read.
    #[serde(default)]
    pub(crate) looks_up: bool,
    /// Whether cache mounts begin empty.
    #[serde(default)]
    pub(crate) fresh_caches: bool,
    /// Whose code it is.
    #[serde(default)]
    pub(crate) trust: Trust,
    /// How its layers are compressed.
    #[serde(default)]
    pub(crate) compression: LayerCompression,
}

/// An export's plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ExportDocument {
    /// One a platform.
    pub(crate) images: Vec<PlannedImage>,
    /// `SOURCE_DATE_EPOCH`, in seconds.
    pub(crate) source_date_epoch: Option<i64>,
    pub(crate) targets: Vec<ExportTarget>,
}

/// An image that is exported.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PlannedImage {
    /// The stage that makes it.
    pub(crate) stage: StageId,
    /// The image's configuration, without diff ids and times.
    pub(crate) document: ImageDocument,
    /// History entries of the base image: they keep their times.
    pub(crate) base_history: usize,
    /// Key of the stage's last step, if it has one: its age is the image's.
    pub(crate) last_key: Option<Digest>,
    /// Layers of a stage that was cached.
    pub(crate) layers: Option<Vec<Layer>>,
}

/// What of an [`ExportDocument`] the age of its images hangs on.
#[derive(Debug, Deserialize)]
pub(crate) struct LastKeys {
    pub(crate) source_date_epoch: Option<i64>,
    pub(crate) images: Vec<LastKey>,
}

/// See [`PlannedImage::last_key`].
#[derive(Debug, Deserialize)]
pub(crate) struct LastKey {
    pub(crate) last_key: Option<Digest>,
}
