//! The state exchange with a worker.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use api::worker::v1::{Abandon, AbandonReason, HeldPhase, InputReady, SyncRequest, SyncResponse};
use common::{Lease, StageId};
use store::{
    CachedSlice, Exchange, Exchanged, Held, NeedsRow, OfferRow, Store, StoreError, SyncState,
};

use super::assign::slice_input;
use super::{App, AppError};
use crate::dispatch::{Rung, Seat};
use crate::gather::Asked;
use crate::scheduler::{Needs, Offer};

/// Longest time that an answer is held back.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// Shortest time, so that there is a look at what is ready.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

impl App {
    /// Takes a worker's state and answers with the state it should have, at once when there is
    /// something to say.
    pub(crate) async fn sync_worker(
        &self,
        request: &SyncRequest,
    ) -> Result<SyncResponse, AppError> {
        let wait = Duration::from_millis(request.wait_millis).min(MAX_WAIT);
        let until = Instant::now() + wait;
        loop {
            self.seats.leave(request.worker).await;
            let (mut response, seat) = self.exchange(request).await?;
            let has_news = !response.assignments.is_empty()
                || !response.abandon.is_empty()
                || !response.inputs.is_empty();
            if has_news || (request.draining && wait.is_zero()) {
                return Ok(response);
            }
            // Whoever will not wait is told what is ready now.
            let rings = self.seats.take(seat);
            let rest = until.saturating_duration_since(Instant::now()).max(SHORTEST_WAIT);
            match tokio::time::timeout(rest, rings).await {
                Ok(Ok(Rung::Has(assignments))) => {
                    response.assignments = assignments;
                    return Ok(response);
                }
                Ok(Ok(Rung::News)) => {}
                // Nothing has happened, or the worker has called again.
                Ok(Err(_)) | Err(_) => return Ok(response),
            }
        }
    }

    async fn exchange(&self, request: &SyncRequest) -> Result<(SyncResponse, Seat), AppError> {
        let held: Vec<Held> = request
            .held
            .iter()
            .map(|held| Held {
                lease: held.lease,
                parked: matches!(held.phase, HeldPhase::Parked { .. }),
                wishes: match &held.phase {
                    HeldPhase::Parked { waiting_for } => {
                        waiting_for.iter().map(|wish| (wish.stage, wish.selector.clone())).collect()
                    }
                    HeldPhase::Running | HeldPhase::Uploading => Vec::new(),
                },
            })
            .collect();
        let wishes = held.iter().flat_map(|held| &held.wishes);
        let wishes =
            wishes.map(|(stage, selector)| (*stage, selector.digest().to_string())).collect();
        let exchange = Exchange {
            worker: request.worker,
            session: request.session,
            slots: request.slots,
            free_slots: request.free_slots,
            draining: request.draining,
            held,
        };
        let store = self.store.clone();
        let answer = self.exchanges.ask(exchange, move |asked| exchange_all(store.clone(), asked));
        let Exchanged { state, asking } = answer.await.ok_or(StoreError::NotFound("answer"))??;
        let leases = state.undelivered.clone();
        let slots = request.free_slots.saturating_sub(u32::try_from(leases.len()).unwrap_or(0));
        let free = (slots > 0 && !request.draining).then_some((slots, asking));
        let seat = Seat { worker: request.worker, session: request.session, free, wishes };
        let response = SyncResponse {
            assignments: self.assignments(leases).await?,
            abandon: abandons(&state),
            inputs: inputs(state.inputs),
            drain: state.drain,
            lost_after_millis: u64::try_from(self.lost_after.as_millis()).unwrap_or(u64::MAX),
        };
        Ok((response, seat))
    }
}

/// Answers many workers at once; whoever needs more than a look gets a task of its own.
async fn exchange_all(store: Store, asked: Vec<Asked<Exchange, store::Result<Exchanged>>>) {
    let all: Vec<Exchange> = asked.iter().map(|(exchange, _)| exchange.clone()).collect();
    let mut found = store.exchange(&all).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "an exchange with many workers failed: each has its own now");
        HashMap::new()
    });
    for (exchange, answer) in asked {
        if let Some(exchanged) = found.remove(&exchange.worker) {
            // Whoever has gone calls again.
            let _ = answer.send(Ok(exchanged));
        } else {
            let store = store.clone();
            tokio::spawn(async move { answer.send(store.exchange_alone(&exchange).await) });
        }
    }
}

/// What a stage needs.
pub(crate) fn needs(row: NeedsRow) -> Needs {
    let NeedsRow { platform, labels, cpu_millis, memory_bytes } = row;
    Needs { platform, labels, cpu_millis, memory_bytes }
}

/// What a worker has.
pub(crate) fn offer(row: OfferRow) -> Offer {
    let OfferRow { platforms, labels, cpu_millis, memory_bytes } = row;
    Offer { platforms, labels, cpu_millis, memory_bytes }
}

fn abandons(state: &SyncState) -> Vec<Abandon> {
    let stale = state
        .stale
        .iter()
        .map(|lease| Abandon { lease: *lease, reason: AbandonReason::Superseded });
    let dropped = state.dropped.iter().map(|(lease, reason)| Abandon {
        lease: *lease,
        reason: match reason.as_str() {
            "cancelled" => AbandonReason::Cancelled,
            _ => AbandonReason::BuildFailed,
        },
    });
    stale.chain(dropped).collect()
}

fn inputs(found: Vec<(Lease, StageId, CachedSlice)>) -> Vec<InputReady> {
    let mut ready: Vec<InputReady> = Vec::new();
    for (lease, stage, slice) in found {
        let input = slice_input(stage, slice);
        match ready.iter_mut().find(|entry| entry.lease == lease) {
            Some(entry) => entry.slices.push(input),
            None => ready.push(InputReady { lease, slices: vec![input] }),
        }
    }
    ready
}
