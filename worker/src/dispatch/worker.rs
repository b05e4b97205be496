//! What all stages of a worker share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::worker::v1::{Abandon, Assignment, HeldStage, InputReady};
use client::worker::Client;
use common::image::Layer;
use common::{Digest, Lease, SessionId, WorkerId};
use layer::Recompress;
use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;

use super::fence::Fence;
use super::held::Held;
use crate::content::ContentStore;
use crate::execute;
use crate::runtime::Runtime;

/// A running worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) session: SessionId,
    pub(crate) slots: u32,
    pub(crate) offer: Offer,
    pub(crate) client: Client,
    pub(crate) registry: registry::Client,
    pub(crate) fetcher: fetch::Fetcher,
    pub(crate) runtime: Runtime,
    pub(crate) content: Arc<ContentStore>,
    /// One permit a slot.
    pub(crate) permits: Arc<Semaphore>,
    /// Until when it may speak for what it holds.
    pub(crate) fence: Arc<Fence>,
    /// Fires when something changed that the coordinator should know.
    pub(crate) changed: Notify,
    pub(crate) tasks: TaskTracker,
    /// Layers of stages that have ended here.
    pub(crate) published: execute::Published,
    /// Layers that were brought into another form here.
    pub(crate) forms: Mutex<HashMap<(Digest, Recompress), Layer>>,
    held: Mutex<HashMap<Lease, Arc<Held>>>,
}

/// What a worker has for stages.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) slots: u32,
    pub(crate) labels: Vec<String>,
    pub(crate) cpu_millis: u32,
    pub(crate) memory_bytes: u64,
}

/// The clients of a worker.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) client: Client,
    pub(crate) registry: registry::Client,
    pub(crate) fetcher: fetch::Fetcher,
}

impl Worker {
    /// A worker that holds nothing.
    pub(crate) fn new(
        id: WorkerId,
        offer: Offer,
        outside: Outside,
        runtime: Runtime,
        content: Arc<ContentStore>,
    ) -> Arc<Self> {
        let slots = offer.slots;
        let Outside { client, registry, fetcher } = outside;
        Arc::new(Self {
            id,
            session: SessionId(uuid::Uuid::now_v7()),
            slots,
            offer,
            client,
            registry,
            fetcher,
            runtime,
            content,
            permits: Arc::new(Semaphore::new(slots as usize)),
            fence: Arc::new(Fence::new()),
            changed: Notify::new(),
            tasks: TaskTracker::new(),
            published: execute::Published::default(),
            forms: Mutex::default(),
            held: Mutex::default(),
        })
    }

    /// All that it holds, for the coordinator.
    pub(crate) fn held(&self) -> Vec<HeldStage> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.values().map(|held| HeldStage { lease: held.lease, phase: held.phase() }).collect()
    }

    /// Begins a stage, unless it has begun before.
    pub(crate) fn begin(self: &Arc<Self>, assignment: Assignment) {
        let lease = assignment.lease;
        let held = Arc::new(Held::new(lease, assignment.project.clone(), Arc::clone(&self.fence)));
        {
            let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if all.contains_key(&lease) {
                return;
            }
            all.insert(lease, Arc::clone(&held));
        }
        let worker = Arc::clone(self);
        self.tasks.spawn(async move {
            execute::run(&worker, &held, assignment).await;
            worker.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&lease);
            worker.changed.notify_one();
        });
    }

    /// Drops a stage.
    pub(crate) fn abandon(&self, abandon: &Abandon) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held.get(&abandon.lease) {
            tracing::debug!(stage.lease = %abandon.lease, reason = ?abandon.reason, "stage dropped");
            held.stop(super::Stopped::Abandoned);
        }
    }

    /// Slices have arrived.
    pub(crate) fn take_inputs(&self, ready: InputReady) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held.get(&ready.lease) {
            held.add_inputs(ready.slices);
        }
    }

    /// Gives everything back.
    pub(crate) fn hand_back_all(&self) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for held in held.values() {
            held.stop(super::Stopped::HandBack);
        }
    }

    /// Whether it holds nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}
