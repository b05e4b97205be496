//! One assignment from begin to reported end.

use std::sync::Arc;
use std::time::Duration;

use api::public::v1::{LogStream, TimingView};
use api::worker::v1::{Assignment, Job, ResultReport, SliceUse, StageOutcome};

use client::ClientError;

use super::failure::JobError;
use super::{export, stage};
use crate::dispatch::{Held, Stopped, Worker};
use crate::logs::{LogSink, Mask};
use crate::transfer::DISK_FULL;

/// Longest time that a result waits for a coordinator that does not answer.
const REPORT_LIMIT: Duration = Duration::from_mins(30);

/// What a job came to, besides its outcome.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) timing: TimingView,
    pub(super) slices_read: Vec<SliceUse>,
    pub(super) uploaded_bytes: u64,
}

/// Runs an assignment and reports its end.
pub(crate) async fn run(worker: &Arc<Worker>, held: &Arc<Held>, assignment: Assignment) {
    let mask = match &assignment.job {
        Job::Stage(job) => Mask::new(&job.secrets),
        Job::Export(_) => Mask::default(),
    };
    let log = LogSink::start(worker.client.clone(), held.lease, mask);
    let mut account = Account::default();
    let dockerfile = assignment.dockerfile.clone();
    let result = match assignment.job {
        Job::Stage(job) => {
            let project = &assignment.project;
            stage::run(worker, held, project, *job, log.writer(), &mut account).await
        }
        Job::Export(job) => export::run(worker, held, *job, log.writer(), &mut account).await,
    };
    let outcome = match (result, held.stopped()) {
        (Ok(outcome), _) => outcome,
        (Err(_), Some(Stopped::Abandoned)) => {
            log.finish().await;
            return;
        }
        (Err(_), Some(Stopped::HandBack)) => {
            StageOutcome::HandedBack { reason: "the worker stops".to_owned() }
        }
        (Err(JobError::Stopped), None) => {
            log.finish().await;
            return;
        }
        (Err(JobError::Failed { failure, step }), None) => {
            let mut failure = *failure;
            if failure.code == DISK_FULL {
                // Before the next exchange with the coordinator.
                worker.content.report_full();
            }
            failure.file.get_or_insert(dockerfile);
            let text = format!("error: {}", failure.message);
            log.writer().line(step.unwrap_or(0), LogStream::System, text).await;
            tracing::info!(stage.lease = %held.lease, %failure, "stage failed");
            StageOutcome::Failed { failure, step }
        }
    };
    log.finish().await;
    let report = ResultReport {
        lease: held.lease,
        outcome,
        timing: account.timing,
        slices_read: account.slices_read,
        uploaded_bytes: account.uploaded_bytes,
    };
    report_result(worker, &report).await;
}

/// Makes a call until the coordinator has an answer, or the stage has to end. Nothing is said while
/// the worker may be lost already.
pub(super) async fn persist<F, T>(held: &Held, mut call: impl FnMut() -> F) -> Result<T, JobError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let mut pause = Duration::from_millis(200);
    loop {
        tokio::select! {
            () = held.fence.open() => {}
            () = held.cancel.cancelled() => return Err(JobError::Stopped),
        }
        match call().await {
            Err(error) if error.is_transient() || error.status() == Some(401) => {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = held.cancel.cancelled() => return Err(JobError::Stopped),
                }
                pause = (pause * 2).min(Duration::from_secs(3));
            }
            result => return Ok(result?),
        }
    }
}

/// Reports until the coordinator has an answer: a result must not be lost for a restart's sake.
async fn report_result(worker: &Worker, report: &ResultReport) {
    let mut pause = Duration::from_millis(200);
    let start = std::time::Instant::now();
    loop {
        // Where nobody can be reached for so long, the result is lost either way.
        let rest = REPORT_LIMIT.saturating_sub(start.elapsed());
        let _ = tokio::time::timeout(rest, worker.fence.open()).await;
        match worker.client.result(report).await {
            Ok(()) => return,
            Err(error)
                if (error.is_transient() || error.status() == Some(401))
                    && start.elapsed() < REPORT_LIMIT =>
            {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(3));
            }
            Err(error) => {
                tracing::warn!(stage.lease = %report.lease, %error, "a result was not taken");
                return;
            }
        }
    }
}
