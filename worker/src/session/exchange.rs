//! Enrolment and the state exchange.
//!
//! A broken connection ends nothing here: stages go on, and the next exchange says so. A worker
//! that was given up meanwhile is told by the coordinator, lease by lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::WORKER_PROTOCOL;
use api::worker::v1::{EnrolRequest, HeldPhase, HeldStage, SyncRequest, SyncResponse};
use client::ClientError;
use common::Platform;
use rand::RngExt as _;
use tokio_util::sync::CancellationToken;

use crate::dispatch::Worker;

/// How long an answer may be held back; never more than a quarter of the time after which a worker is
/// lost, since only an answer tells the worker that it was heard.
const WAIT: Duration = Duration::from_secs(4);
/// First pause after a failed exchange; it doubles up to the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Works until `soft`, then until nothing is held, or until `hard`.
pub(crate) async fn run(
    worker: Arc<Worker>,
    name: String,
    soft: CancellationToken,
    hard: CancellationToken,
) {
    let mut pause = FIRST_PAUSE;
    let mut enrolled: Option<Instant> = None;
    loop {
        let draining = soft.is_cancelled();
        if (draining && worker.is_idle()) || hard.is_cancelled() {
            break;
        }
        if enrolled.is_none_or(|at| at.elapsed() > Duration::from_mins(30)) {
            match enrol(&worker, &name).await {
                Ok(()) => enrolled = Some(Instant::now()),
                Err(error) => {
                    tracing::warn!(%error, "cannot enrol");
                    wait(&mut pause, &soft).await;
                    continue;
                }
            }
        }
        let exchanged = tokio::select! {
            exchanged = exchange(&worker, draining) => Some(exchanged),
            // The held-open call is given up so that the news can be told at once; what its answer
            // would have said comes again.
            () = worker.changed.notified() => None,
            () = soft.cancelled(), if !draining => None,
            () = hard.cancelled() => break,
        };
        match exchanged {
            None => {}
            Some(Ok(response)) => {
                pause = FIRST_PAUSE;
                apply(&worker, response);
            }
            Some(Err(error)) => {
                if matches!(error.status(), Some(401 | 403 | 404)) {
                    enrolled = None;
                }
                tracing::warn!(%error, "an exchange failed, running stages go on");
                wait(&mut pause, &soft).await;
            }
        }
    }
    // The last word: nothing is held, nothing is wanted.
    let goodbye = SyncRequest { wait_millis: 0, ..request(&worker, true) };
    let _ = tokio::time::timeout(Duration::from_secs(2), worker.client.sync(&goodbye)).await;
}

async fn enrol(worker: &Worker, name: &str) -> Result<(), ClientError> {
    let request = EnrolRequest {
        worker: worker.id,
        name: name.to_owned(),
        platforms: vec![Platform::host()],
        labels: worker.offer.labels.clone(),
        cpu_millis: worker.offer.cpu_millis,
        memory_bytes: worker.offer.memory_bytes,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: WORKER_PROTOCOL,
    };
    worker.client.enrol(&request).await?;
    tracing::info!(worker.id = %worker.id, "enrolled");
    Ok(())
}

fn request(worker: &Worker, draining: bool) -> SyncRequest {
    let held = worker.held();
    let wait = WAIT.min(worker.fence.lost_after() / 4);
    SyncRequest {
        worker: worker.id,
        session: worker.session,
        slots: worker.slots,
        free_slots: free_slots(worker, &held),
        draining,
        held,
        wait_millis: u64::try_from(wait.as_millis()).unwrap_or(0),
    }
}

/// Slots that nobody has or is about to take: a stage that has just begun, and one that has got what
/// it was parked for, have no permit yet.
///
/// None are, while the disk is full.
fn free_slots(worker: &Worker, held: &[HeldStage]) -> u32 {
    if worker.content.is_full() {
        return 0;
    }
    let wants_slot = |stage: &&HeldStage| match &stage.phase {
        HeldPhase::Running => true,
        HeldPhase::Parked { waiting_for } => waiting_for.is_empty(),
        HeldPhase::Uploading => false,
    };
    let wanted = u32::try_from(held.iter().filter(wants_slot).count()).unwrap_or(u32::MAX);
    let permits = u32::try_from(worker.permits.available_permits()).unwrap_or(0);
    worker.slots.saturating_sub(wanted).min(permits)
}

async fn exchange(worker: &Worker, draining: bool) -> Result<SyncResponse, ClientError> {
    let asked = Instant::now();
    let response = worker.client.sync(&request(worker, draining)).await?;
    worker.fence.renew(asked.into(), Duration::from_millis(response.lost_after_millis));
    Ok(response)
}

fn apply(worker: &Arc<Worker>, response: SyncResponse) {
    for abandon in &response.abandon {
        worker.abandon(abandon);
    }
    for inputs in response.inputs {
        worker.take_inputs(inputs);
    }
    for assignment in response.assignments {
        tracing::info!(
            stage.lease = %assignment.lease,
            build.id = %assignment.build,
            label = assignment.label,
            "stage begins"
        );
        worker.begin(assignment);
    }
}

/// Sleeps with jitter, so that workers do not come back all at once.
async fn wait(pause: &mut Duration, stop: &CancellationToken) {
    let jitter = rand::rng().random_range(0.5..1.0);
    tokio::select! {
        () = tokio::time::sleep(pause.mul_f64(jitter)) => {}
        () = stop.cancelled() => tokio::time::sleep(FIRST_PAUSE).await,
    }
    *pause = (*pause * 2).min(LONGEST_PAUSE);
}
