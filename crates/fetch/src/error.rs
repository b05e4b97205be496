//! What goes wrong.

use common::{Failure, FailureClass};

/// Why something was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The address is none that can be fetched.
    #[error("cannot fetch {url}: {problem}")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It leads into a network that is not to be reached.
    #[error("cannot fetch {0}: it leads to a private network")]
    Private(String),
    /// The server refused.
    #[error("cannot fetch {url}: the server answered {status}")]
    Status {
        /// The address.
        url: String,
        /// The answer.
        status: u16,
    },
    /// It is longer than the limit.
    #[error("cannot fetch {url}: it is longer than {limit} bytes")]
    TooLong {
        /// The address.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// The network.
    #[error("cannot fetch {url}: {message}")]
    Transport {
        /// The address.
        url: String,
        /// In words.
        message: String,
    },
    /// A local file.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// The client cannot be made.
    #[error("the HTTP client cannot be made: {0}")]
    Client(String),
}

impl FetchError {
    /// Whether another try may help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Status { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }

    /// As a build's failure.
    pub fn failure(&self) -> Failure {
        let (class, code, hint) = match self {
            Self::Address { .. } => (FailureClass::User, "bad-url", None),
            Self::Private(_) => {
                let hint = "the operator can allow that: [fetch] allow_private_networks = true";
                (FailureClass::User, "private-network", Some(hint))
            }
            Self::Status { status: 400..=499, .. } => (FailureClass::User, "fetch-refused", None),
            Self::TooLong { .. } => {
                let hint = "the limit is [fetch] max_bytes of the worker";
                (FailureClass::Resource, "fetch-too-long", Some(hint))
            }
            Self::Status { .. } | Self::Transport { .. } => {
                (FailureClass::Registry, "fetch-failed", None)
            }
            Self::File(_) | Self::Client(_) => (FailureClass::Infrastructure, "fetch-failed", None),
        };
        let failure = Failure::new(class, code, self.to_string());
        match hint {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    }
}
