//! What every use case works with.

use std::collections::BTreeMap;
use std::time::Duration;

use api::Problem;
use blobstore::objects::{ObjectError, ObjectStore};
use logbus::Bus;
use store::{Exchange, Exchanged, Finished, Resulted, Retention, Store, StoreError};
use tokio::sync::watch;

use crate::auth::KeyRing;
use crate::config::RetentionConfig;
use crate::dispatch::Seats;
use crate::gather::Gather;
use crate::metrics::Metrics;
use crate::vault::Vault;

/// The connections of this process.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) objects: ObjectStore,
    pub(crate) bus: Bus,
    /// Workers that wait here.
    pub(crate) seats: Seats,
    /// Exchanges of states with workers.
    pub(crate) exchanges: Gather<Exchange, store::Result<Exchanged>>,
    /// Stages that have succeeded.
    pub(crate) results: Gather<Finished, store::Result<Resulted>>,
    pub(crate) registry: registry::Client,
    pub(crate) fetcher: fetch::Fetcher,
    pub(crate) keys: KeyRing,
    /// Without it there are no secrets.
    pub(crate) vault: Option<Vault>,
    pub(crate) metrics: Metrics,
    /// What is kept, and how long.
    pub(crate) retention: Keeping,
    /// Held while an object is read to see whether it is whole: one at a time.
    pub(crate) suspicion: tokio::sync::Mutex<()>,
    /// Weights of projects, as they were a moment ago.
    pub(crate) weights: watch::Sender<BTreeMap<String, u32>>,
    /// A worker that has not called for this long is lost.
    pub(crate) lost_after: Duration,
}

/// What is kept, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keeping {
    /// How long an address of an object is good.
    pub(crate) addresses: Duration,
    /// Time between rounds.
    pub(crate) interval: Duration,
    /// The rest.
    pub(crate) rules: Retention,
}

impl From<&RetentionConfig> for Keeping {
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    fn from(config: &RetentionConfig) -> Self {
        let hold_secs = 2 * config.address_secs;
        let rules = Retention {
            cache_secs: config.cache_secs as f64,
            cache_bytes: config.cache_bytes,
            unused_secs: config.unused_secs as f64,
            exports_secs: config.exports_secs as f64,
            logs_secs: config.logs_secs as f64,
            builds_secs: config.builds_secs as f64,
            grace_secs: config.grace_secs as f64,
            hold_secs: hold_secs as f64,
            // Often enough that what is due goes soon, seldom enough to cost nothing.
            check_secs: (config.unused_secs / 100).clamp(config.interval_secs, 3600) as f64,
        };
        Self {
            // Longer ones nobody signs.
            addresses: Duration::from_secs(config.address_secs.clamp(1, 7 * 24 * 3600)),
            interval: Duration::from_secs(config.interval_secs.max(1)),
            rules,
        }
    }
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
    /// A client that cannot be made.
    #[error(transparent)]
    Fetch(#[from] fetch::FetchError),
    /// A document that cannot be written or read.
    #[error("a document cannot be converted: {0}")]
    Document(#[from] serde_json::Error),
}

impl From<Problem> for AppError {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}
