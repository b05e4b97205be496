//! Uploading a build context by difference.
//!
//! 1. The client makes manifest and packs (`docs/formats/manifest.md`).
//! 2. `POST /v1/contexts` names them; the answer names those that the farm lacks, with presigned
//!    URLs.
//! 3. The client PUTs these straight to the object store.
//! 4. `POST /v1/builds` names the manifest. The coordinator checks that all of it has arrived.

use common::{Digest, ProjectName};
use serde::{Deserialize, Serialize};

/// A pack that the client could send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PackOffer {
    /// Digest of the pack's bytes.
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
    /// The encoded manifest.
    pub manifest: PackOffer,
    /// Every pack that the manifest refers to.
    pub packs: Vec<PackOffer>,
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
