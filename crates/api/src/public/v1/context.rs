//! Uploading a build context by difference.
//!
//! 1. The client makes manifest and packs (`docs/formats/manifest.md`).
//! 2. `POST /v1/contexts` names them; the answer names those that the farm lacks, with presigned
//!    URLs.
//! 3. The client PUTs these straight to the object store.
//!    The layers of images from a client's layout go the same way.
//! 4. `POST /v1/builds` names the manifest. The coordinator checks that all of it has arrived.

use common::{Digest, ProjectName};
use serde::{Deserialize, Serialize};

/// Something that the client could send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PackOffer {
    /// Digest of its bytes.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
}

/// Request body of `POST /v1/contexts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ContextUpload {
    /// The project that the context is for.
    #[schema(value_type = String)]
    pub project: ProjectName,
    /// The encoded manifest; absent where there are blobs alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PackOffer>,
    /// Every pack that the manifest refers to.
    #[serde(default)]
    pub packs: Vec<PackOffer>,
    /// Layers of images that come from a layout, as they lie there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<PackOffer>,
}

/// Where to send one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UploadTarget {
    /// The object's digest.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Presigned URL for one PUT.
    pub url: String,
    /// Headers that have to go with the PUT, because the signature covers them.
    pub headers: Vec<(String, String)>,
}

/// Answer of `POST /v1/contexts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ContextNegotiation {
    /// What the farm lacks. Empty: everything is there.
    pub missing: Vec<UploadTarget>,
}
