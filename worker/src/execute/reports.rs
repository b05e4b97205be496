//! Reports of steps: sent in order, beside the work, so that no step waits for the coordinator.

use std::sync::Arc;
use std::time::Duration;

use api::worker::v1::{DoneReport, StepReport, StepsReport};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::failure::JobError;
use super::job::persist;
use crate::dispatch::{Held, Worker};
use crate::logs::LogWriter;

/// Reports that wait; a step that has more to say waits too.
const WAITING: usize = 256;
/// Time between two calls: many steps take less than a call costs coordinator and database.
const PACE: Duration = Duration::from_millis(100);

/// What a stage reports before its result.
pub(super) enum Report {
    Step(StepReport),
    /// All steps have ended; the log comes before it.
    Done(DoneReport, LogWriter),
}

/// Sends the reports of one stage.
pub(super) struct Reports {
    sender: Option<mpsc::Sender<Report>>,
    sending: Option<JoinHandle<Result<(), JobError>>>,
}

impl Reports {
    pub(super) fn start(worker: &Arc<Worker>, held: &Arc<Held>) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let sending = tokio::spawn(send_all(Arc::clone(worker), Arc::clone(held), receiver));
        Self { sender: Some(sender), sending: Some(sending) }
    }

    /// Puts a report behind those that wait. Fails when one of them was refused: then nobody wants
    /// the stage any more.
    pub(super) async fn send(&mut self, report: Report) -> Result<(), JobError> {
        if let Some(sender) = &self.sender
            && sender.send(report).await.is_ok()
        {
            return Ok(());
        }
        self.flush().await?;
        Err(JobError::Stopped)
    }

    /// Waits until all have arrived. It is the last that is done.
    pub(super) async fn flush(&mut self) -> Result<(), JobError> {
        // The channel ends with its only sender.
        self.sender = None;
        match self.sending.take() {
            Some(sending) => sending.await?,
            None => Ok(()),
        }
    }
}

async fn send_all(
    worker: Arc<Worker>,
    held: Arc<Held>,
    mut receiver: mpsc::Receiver<Report>,
) -> Result<(), JobError> {
    let (mut batch, mut next) = (Vec::new(), Instant::now());
    while receiver.recv_many(&mut batch, WAITING).await > 0 {
        gather(&mut receiver, &mut batch, next).await;
        next = Instant::now() + PACE;
        for call in calls(batch.drain(..)) {
            match call {
                Call::Steps(steps) => {
                    let report = StepsReport { lease: held.lease, steps };
                    persist(&held, || worker.client.steps(&report)).await?;
                }
                Call::Done(report, log) => {
                    log.flush().await;
                    persist(&held, || worker.client.done(&report)).await?;
                }
            }
        }
    }
    Ok(())
}

/// Adds what there is to say until `next`, unless somebody waits for what there is.
async fn gather(receiver: &mut mpsc::Receiver<Report>, batch: &mut Vec<Report>, next: Instant) {
    while batch.len() < WAITING && !batch.iter().any(|report| matches!(report, Report::Done(..))) {
        tokio::select! {
            biased;
            more = receiver.recv_many(batch, WAITING) => if more == 0 { return },
            () = tokio::time::sleep_until(next) => return,
        }
    }
}

/// One call to the coordinator.
enum Call {
    Steps(Vec<StepReport>),
    Done(DoneReport, LogWriter),
}

/// What has to be sent: of what a step has to say only the newest.
fn calls(batch: impl Iterator<Item = Report>) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for report in batch {
        match (report, calls.last_mut()) {
            (Report::Done(report, log), _) => calls.push(Call::Done(report, log)),
            (Report::Step(report), Some(Call::Steps(steps))) => {
                match steps.iter_mut().find(|known| known.number == report.number) {
                    Some(known) => *known = report,
                    None => steps.push(report),
                }
            }
            (Report::Step(report), _) => calls.push(Call::Steps(vec![report])),
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use api::worker::v1::StepState;

    use super::*;

    #[test]
    fn of_what_a_step_has_to_say_the_newest_counts() {
        let report = |number, state| {
            let timing = api::public::v1::TimingView::default();
            Report::Step(StepReport { number, state, timing, layer: None })
        };
        let batch = [
            report(1, StepState::Running),
            report(1, StepState::Done),
            report(2, StepState::Running),
            report(1, StepState::Stored),
        ];
        let sent: Vec<_> = calls(batch.into_iter())
            .iter()
            .map(|call| match call {
                Call::Steps(steps) => {
                    steps.iter().map(|step| (step.number, step.state)).collect::<Vec<_>>()
                }
                Call::Done(..) => Vec::new(),
            })
            .collect();
        assert_eq!(sent, [[(1, StepState::Stored), (2, StepState::Running)]]);
    }
}
