//! What goes wrong with calls.

use api::Problem;

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The coordinator refused it.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// Nobody answers.
    #[error("cannot reach {url}: {message}")]
    Unreachable {
        /// Where.
        url: String,
        /// What happened.
        message: String,
    },
    /// The answer is not what it should be.
    #[error("{url} gave an answer that cannot be read: {message}")]
    Malformed {
        /// Where.
        url: String,
        /// What is wrong.
        message: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The object store did not take or give the bytes.
    #[error("the object store answered {status}: {message}")]
    Store {
        /// The status.
        status: u16,
        /// The beginning of its answer.
        message: String,
    },
}

impl ClientError {
    /// Status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(problem) => Some(problem.status),
            Self::Store { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(problem) => problem.status == 429 || problem.status >= 500,
            Self::Store { status, .. } => *status == 429 || *status >= 500,
            Self::Malformed { .. } | Self::File { .. } => false,
        }
    }

    /// Whether the store got other bytes than those that its address is for: changed on their way, or
    /// by whoever sent them.
    pub fn is_mismatch(&self) -> bool {
        const CODES: [&str; 2] = ["BadDigest", "XAmzContentChecksumMismatch"];
        match self {
            Self::Store { status: 400, message } => CODES.iter().any(|code| message.contains(code)),
            _ => false,
        }
    }
}
