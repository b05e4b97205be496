//! What may be lost: live log lines and wake-ups between coordinators.
//!
//! Every message reaches the subscribers of this process at once. With Redis it also reaches those
//! of other processes, by one channel. A Redis that is slow, hung or gone costs nothing but that:
//! messages to it wait in a bounded queue and are dropped when it is full, and counted. Stored logs
//! and the database are the truth; whoever lags or missed something reads there.

mod redis;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::worker::v1::LogChunk;
use common::BuildId;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc};

/// Messages that a subscriber may lag behind.
const SUBSCRIBER_BUFFER: usize = 4096;
/// Messages that wait for Redis.
const REDIS_BUFFER: usize = 4096;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Something changed that a worker's wished state may depend on.
    Workers,
    /// There is a build to plan.
    Planner,
    /// The view of a build changed.
    Build(BuildId),
    /// A message to an agent of a build's client waits, or has its answer.
    Agent(BuildId),
    /// Lines of a build's log; a chunk may come twice.
    Log(BuildId, Arc<LogChunk>),
}

/// Where messages go and come from. Clones share everything.
#[derive(Debug, Clone)]
pub struct Bus {
    local: broadcast::Sender<Message>,
    remote: Option<mpsc::Sender<Message>>,
    dropped: Arc<AtomicU64>,
}

impl Bus {
    /// A bus of this process alone.
    pub fn in_process() -> Self {
        let (local, _) = broadcast::channel(SUBSCRIBER_BUFFER);
        Self { local, remote: None, dropped: Arc::default() }
    }

    /// A bus that also reaches other processes through the Redis at `url`, whenever that answers.
    /// Ends with the runtime. Fails only for an address that is none.
    pub fn redis(url: &str) -> Result<Self, InvalidAddress> {
        let client =
            ::redis::Client::open(url).map_err(|error| InvalidAddress(error.to_string()))?;
        let (remote, queue) = mpsc::channel(REDIS_BUFFER);
        let bus = Self { remote: Some(remote), ..Self::in_process() };
        redis::start(client, bus.local.clone(), queue);
        Ok(bus)
    }

    /// Sends a message. Never waits.
    pub fn send(&self, message: Message) {
        if let Some(remote) = &self.remote
            && remote.try_send(message.clone()).is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        // Without subscribers there is nobody to tell.
        let _ = self.local.send(message);
    }

    /// All messages from now on. A subscriber that lags is told how many it missed.
    pub fn subscribe(&self) -> broadcast::Receiver<Message> {
        self.local.subscribe()
    }

    /// Messages that could not be handed to Redis.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Text that is no address of a Redis server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid Redis address: {0}")]
pub struct InvalidAddress(String);
