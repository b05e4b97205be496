//! Reports of steps: sent in order, beside the work, so that no step waits for the coordinator.

use std::collections::VecDeque;
use std::sync::Arc;

use api::worker::v1::{DoneReport, StepReport, StepState};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::failure::JobError;
use super::job::persist;
use crate::dispatch::{Held, Worker};
use crate::logs::LogWriter;

/// Reports that wait; a step that has more to say waits too.
const WAITING: usize = 256;

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
    let mut batch = Vec::new();
    while receiver.recv_many(&mut batch, WAITING).await > 0 {
        for report in newest(batch.drain(..)) {
            match report {
                Report::Step(report) => persist(&held, || worker.client.step(&report)).await?,
                Report::Done(report, log) => {
                    log.flush().await;
                    persist(&held, || worker.client.done(&report)).await?;
                }
            }
        }
    }
    Ok(())
}

/// What has to be sent: of a step that began and ended meanwhile only the end.
fn newest(batch: impl DoubleEndedIterator<Item = Report>) -> VecDeque<Report> {
    let mut reports: VecDeque<Report> = VecDeque::new();
    for report in batch.rev() {
        let has_end = |number| {
            let is_its =
                |later: &Report| matches!(later, Report::Step(later) if later.number == number);
            reports.iter().any(is_its)
        };
        let is_over = matches!(&report, Report::Step(report)
            if report.state == StepState::Running && has_end(report.number));
        if !is_over {
            reports.push_front(report);
        }
    }
    reports
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::{Epoch, Lease, StageId};

    #[test]
    fn a_step_that_has_ended_need_not_be_said_to_have_begun() {
        let lease = Lease { stage: StageId(uuid::Uuid::now_v7()), epoch: Epoch(1) };
        let report = |number, state| {
            let timing = api::public::v1::TimingView::default();
            Report::Step(StepReport { lease, number, state, timing, layer: None })
        };
        let batch = [
            report(1, StepState::Running),
            report(1, StepState::Done),
            report(1, StepState::Stored),
            report(2, StepState::Running),
        ];
        let sent: Vec<_> = newest(batch.into_iter())
            .iter()
            .filter_map(|report| match report {
                Report::Step(report) => Some((report.number, report.state)),
                Report::Done(..) => None,
            })
            .collect();
        let expected = [(1, StepState::Done), (1, StepState::Stored), (2, StepState::Running)];
        assert_eq!(sent, expected);
    }
}
