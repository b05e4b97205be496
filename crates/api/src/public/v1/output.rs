//! What is made of a target.

use common::Platform;
use serde::{Deserialize, Serialize};

/// One thing to make of the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum OutputRequest {
    /// An image, in a registry under each of the names.
    Image {
        /// References such as `registry.example/team/app:1`.
        names: Vec<String>,
        /// Whether to push. Without it the image only exists in the farm's cache.
        push: bool,
        /// Push without moving a tag: the image is known by its digest alone.
        #[serde(default)]
        by_digest: bool,
        /// What the image is like.
        #[serde(default)]
        options: ImageOptions,
    },
    /// An OCI image layout as one tar file, kept for download.
    Oci {
        /// References to record in the archive's index.
        names: Vec<String>,
        /// What the image is like.
        #[serde(default)]
        options: ImageOptions,
    },
    /// The same with what `docker load` reads. For one platform.
    Docker {
        /// References that the loaded image gets.
        names: Vec<String>,
        /// What the image is like.
        #[serde(default)]
        options: ImageOptions,
    },
    /// The files of the result as one tar file, kept for download.
    Tar {
        /// Whether the files of each platform are in a directory of its own, such as `linux_arm64`;
        /// absent: where there are several.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        split: Option<bool>,
    },
}

/// How layers are compressed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LayerCompression {
    /// gzip.
    #[default]
    Gzip,
    /// zstd.
    Zstd,
    /// Not at all.
    Uncompressed,
}

/// What an image is like.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct ImageOptions {
    /// How its layers are compressed; those of the base image keep their form.
    pub compression: LayerCompression,
    /// How hard: 1 to 9 for gzip, 1 to 22 for zstd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression_level: Option<i32>,
    /// Compress the layers of the base image anew too.
    pub force_compression: bool,
    /// Use Docker's media types (schema 2) instead of OCI's.
    pub docker_media_types: bool,
    /// No file of a new layer is younger than `SOURCE_DATE_EPOCH`.
    pub rewrite_timestamp: bool,
    /// Annotations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<Annotation>,
}

/// Where an annotation is written.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum AnnotationPlace {
    /// The manifest of each platform.
    Manifest,
    /// The entry that names the manifest: in the index, or in that of a layout.
    ManifestDescriptor,
    /// The index of several platforms.
    Index,
    /// The entry that names the index in a layout.
    IndexDescriptor,
}

/// An annotation of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Annotation {
    /// Where it is written.
    pub place: AnnotationPlace,
    /// Only for this platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub platform: Option<Platform>,
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}
