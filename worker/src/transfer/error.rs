//! Why a transfer failed.

use blobstore::layout::LayoutError;
use blobstore::manifest::ManifestError;
use client::ClientError;
use common::{Failure, FailureClass};
use layer::ExtractError;
use registry::RegistryError;

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    /// A registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The coordinator or the object store.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A layer.
    #[error("cannot unpack a layer: {0}")]
    Extract(#[from] ExtractError),
    /// A layer that registries do not hand out.
    #[error("foreign layer {layer} of {repository} cannot be had: {reasons}")]
    Foreign {
        /// The layer.
        layer: String,
        /// The image's repository.
        repository: String,
        /// Why, for each address.
        reasons: String,
    },
    /// A tree.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Bytes that are not those that were asked for.
    #[error("{0} arrived damaged")]
    Damaged(String),
    /// The disk of the worker.
    #[error("the worker's disk failed: {0}")]
    Disk(#[from] std::io::Error),
    /// A task that panicked.
    #[error("a task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The code of failures for lack of space: the worker takes no stage before there is some.
pub(crate) const DISK_FULL: &str = "disk-full";

/// Whether an error says that there is no space, or that the user may not have more.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

impl TransferError {
    /// Whether the worker's disk is full.
    pub(crate) fn is_disk_full(&self) -> bool {
        match self {
            Self::Disk(error)
            | Self::Extract(ExtractError::Io { source: error, .. })
            | Self::Layout(LayoutError::Write { source: error, .. }) => is_full(error),
            _ => false,
        }
    }

    /// Whether the object that was asked for may be the reason.
    pub(super) fn blames_object(&self) -> bool {
        match self {
            Self::Damaged(_) | Self::Layout(LayoutError::Damaged { .. }) | Self::Manifest(_) => {
                true
            }
            Self::Extract(ExtractError::Refused { .. }) => false,
            Self::Extract(_) => !self.is_disk_full(),
            Self::Client(ClientError::Store { status, .. }) => *status == 404,
            _ => false,
        }
    }

    /// The failure to show.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Registry(error) => error.failure(),
            Self::Foreign { .. } => {
                let hint = "it is not in the registry, but elsewhere: the worker has to reach that \
                            address; [fetch] allow_private_networks allows private ones";
                Failure::new(FailureClass::Registry, "layer-missing", self.to_string())
                    .with_hint(hint)
            }
            _ if self.is_disk_full() => {
                Failure::new(FailureClass::Infrastructure, DISK_FULL, self.to_string())
            }
            Self::Extract(ExtractError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::StorageFull =>
            {
                Failure::new(FailureClass::Infrastructure, "disk-full", self.to_string())
            }
            Self::Extract(ExtractError::Refused { .. }) => {
                Failure::new(FailureClass::User, "bad-layer", self.to_string())
                    .with_hint("the base image holds what no image may: use another one")
            }
            _ => Failure::new(FailureClass::Infrastructure, "transfer-failed", self.to_string()),
        }
    }
}
