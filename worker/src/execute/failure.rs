//! Why a job ended without success.

use common::{Failure, FailureClass};

use crate::transfer::TransferError;

/// Why a job ended without success.
#[derive(Debug)]
pub(super) enum JobError {
    /// It was stopped: see the reason in what is held.
    Stopped,
    /// It failed, in a step or outside of any.
    Failed { failure: Box<Failure>, step: Option<u32> },
}

impl From<Failure> for JobError {
    fn from(failure: Failure) -> Self {
        Self::Failed { failure: Box::new(failure), step: None }
    }
}

impl From<TransferError> for JobError {
    fn from(error: TransferError) -> Self {
        error.failure().into()
    }
}

impl From<std::io::Error> for JobError {
    fn from(error: std::io::Error) -> Self {
        TransferError::from(error).into()
    }
}

impl From<tokio::task::JoinError> for JobError {
    fn from(error: tokio::task::JoinError) -> Self {
        Failure::new(FailureClass::Infrastructure, "task-failed", error.to_string()).into()
    }
}

impl From<client::ClientError> for JobError {
    fn from(error: client::ClientError) -> Self {
        // The lease is gone: whatever happened, nobody wants to know it.
        if error.status() == Some(409) {
            return Self::Stopped;
        }
        TransferError::from(error).into()
    }
}
