//! Presigned URLs: workers hold no keys of the object store.

use common::{Digest, Lease};
use serde::{Deserialize, Serialize};

/// What an object is; each kind has its own prefix (design: bytes in S3).
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// A layer.
    Blob,
    /// A group of files.
    Pack,
    /// A tree.
    Manifest,
    /// An archive for download.
    Export,
}

/// One object of the project that the lease belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ObjectName {
    /// What it is.
    pub kind: ObjectKind,
    /// Digest of its bytes.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Its length in bytes; needed for a PUT, ignored for a GET.
    #[serde(default)]
    pub size_bytes: u64,
}

/// Body of `POST /worker/v1/objects`; at most 1,000 names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ObjectsRequest {
    /// The stage on whose behalf.
    #[schema(value_type = Object)]
    pub lease: Lease,
    /// Objects to read.
    #[serde(default)]
    pub get: Vec<ObjectName>,
    /// Objects to write.
    #[serde(default)]
    pub put: Vec<ObjectName>,
}

/// Where to read one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GetUrl {
    /// Its digest.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Presigned URL; ranges are allowed.
    pub url: String,
}

/// Where to write one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PutUrl {
    /// Its digest.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Presigned URL for one PUT; absent when the object is there already.
    pub url: Option<String>,
    /// Headers that have to go with the PUT.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

/// Answer of `objects`, in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ObjectsResponse {
    /// For `get`.
    pub get: Vec<GetUrl>,
    /// For `put`.
    pub put: Vec<PutUrl>,
}

/// Body of `POST /worker/v1/objects/suspect`; at most 100 names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SuspectRequest {
    /// The stage that cannot go on without them.
    #[schema(value_type = Object)]
    pub lease: Lease,
    /// Objects that are not there, or whose bytes are not those that their names promise.
    pub objects: Vec<ObjectName>,
}

/// Answer of `POST /worker/v1/objects/suspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SuspectResponse {
    /// Those that the coordinator has found damaged or missing as well: they are struck out.
    #[schema(value_type = Vec<String>)]
    pub struck_out: Vec<Digest>,
}
