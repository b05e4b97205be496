//! What every use case works with.

use std::time::Duration;

use api::Problem;
use blobstore::objects::{ObjectError, ObjectStore};
use logbus::Bus;
use store::{Store, StoreError};

use crate::auth::KeyRing;
use crate::metrics::Metrics;
use crate::vault::Vault;

/// The connections of this process.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) objects: ObjectStore,
    pub(crate) bus: Bus,
    pub(crate) registry: registry::Client,
    pub(crate) fetcher: fetch::Fetcher,
    pub(crate) keys: KeyRing,
    /// Without it there are no secrets.
    pub(crate) vault: Option<Vault>,
    pub(crate) metrics: Metrics,
    /// A worker that has not called for this long is lost.
    pub(crate) lost_after: Duration,
}

/// Why a use case ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppError {
    /// The caller's fault, in words.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object store.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// A document that cannot be written or read.
    #[error("a document cannot be converted: {0}")]
    Document(#[from] serde_json::Error),
}

impl From<Problem> for AppError {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}
