//! What goes wrong with registries.

use std::time::Duration;

use common::{Failure, FailureClass};

/// A call to a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No such image, or none that we may see.
    #[error("image {0} was not found")]
    NotFound(String),
    /// The registry has the image, but not all of its layers.
    #[error("layer {layer} of {repository} was not found")]
    LayerMissing {
        /// The image's repository.
        repository: String,
        /// The layer.
        layer: String,
    },
    /// The image has nothing for the platform.
    #[error("image {reference} has no manifest for {platform}")]
    NoPlatform {
        /// The image.
        reference: String,
        /// What was asked for.
        platform: String,
    },
    /// Credentials are missing or wrong.
    #[error("{registry} denied access to {what}")]
    Denied {
        /// The registry.
        registry: String,
        /// The repository.
        what: String,
    },
    /// Nobody answers.
    #[error("cannot reach the registry {registry}: {message}")]
    Unreachable {
        /// The registry.
        registry: String,
        /// What happened.
        message: String,
    },
    /// The registry answered with an error.
    #[error("the registry {registry} answered {status} to {action}: {message}")]
    Status {
        /// The registry.
        registry: String,
        /// The status.
        status: u16,
        /// What was asked for.
        action: String,
        /// The beginning of its answer.
        message: String,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// What came is not what was asked for.
    #[error("the registry {registry} sent {what} that is not valid: {problem}")]
    Invalid {
        /// The registry.
        registry: String,
        /// What it sent.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// The bytes to push cannot be read.
    #[error("cannot read the layer {0}")]
    Source(String, #[source] std::io::Error),
    /// A file of the configuration cannot be used.
    #[error("cannot use {0}: {1}")]
    Config(String, String),
}

impl RegistryError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }

    /// The status that the registry answered with, where it is an odd one.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::NotFound(_) => Some(404),
            _ => None,
        }
    }

    /// How long the registry asks to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The failure to show.
    pub fn failure(&self) -> Failure {
        let make = |class, code| Failure::new(class, code, self.to_string());
        match self {
            Self::NotFound(_) => make(FailureClass::User, "image-not-found")
                .with_hint("check the name and tag; a private image needs credentials for its registry"),
            Self::LayerMissing { .. } => make(FailureClass::Registry, "layer-missing")
                .with_hint("push the image again, or use another one: the registry has lost a part of it"),
            Self::NoPlatform { .. } => make(FailureClass::User, "image-platform")
                .with_hint("choose another image, or another platform with --platform"),
            Self::Denied { .. } => make(FailureClass::User, "registry-denied")
                .with_hint("check the name; for a private repository put credentials into the workers' Docker config.json"),
            Self::Unreachable { .. } => make(FailureClass::Registry, "registry-unreachable").with_hint(
                "check the address and that the registry runs; mirrors and plain HTTP are set under [registries]",
            ),
            Self::Source(..) => make(FailureClass::Infrastructure, "layer-unreadable"),
            Self::Status { .. } | Self::Invalid { .. } | Self::Config(..) => {
                make(FailureClass::Registry, "registry-error")
            }
        }
    }
}
