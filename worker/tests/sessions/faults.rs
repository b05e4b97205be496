//! Stages when the farm stumbles.

use std::time::Duration;

use api::worker::v1::{Abandon, AbandonReason, HeldPhase, StageOutcome};

use crate::coordinator::{Coordinator, State};
use crate::jobs::{Worker, base, stage};

/// The command of the stage has begun.
fn has_line(text: &str) -> impl FnMut(&State) -> Option<()> {
    move |state| {
        let mut lines = state.logs.values().flat_map(|chunk| &chunk.lines);
        lines.any(|line| line.text == text).then_some(())
    }
}

fn holds_nothing(state: &State) -> Option<()> {
    state.syncs.last().filter(|(_, sync)| sync.held.is_empty()).map(|_| ())
}

fn succeeded(result: &api::worker::v1::ResultReport) -> bool {
    matches!(result.outcome, StageOutcome::Succeeded { .. })
}

#[tokio::test]
async fn a_dropped_stage_ends_at_once_and_gives_no_result() {
    let coordinator = Coordinator::start().await;
    let base = base(&coordinator);
    let worker = Worker::start(&coordinator, 1);
    let lease = stage(&[base]).run("echo begun; sleep 1000").submit(&coordinator);
    coordinator.until("it runs", has_line("begun")).await;
    let begun = std::time::Instant::now();
    let reason = AbandonReason::Cancelled;
    coordinator.change(|state| state.abandon.push(Abandon { lease, reason }));
    coordinator.until("it is dropped", holds_nothing).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(coordinator.state().results.is_empty());
    worker.stop().await;
}

#[tokio::test]
async fn a_stage_whose_lease_is_gone_is_dropped_without_a_result() {
    let coordinator = Coordinator::start().await;
    let base = base(&coordinator);
    coordinator.change(|state| {
        // The report that the step has ended comes too late.
        state.faults.insert("steps", [503, 409, 409, 409].into());
    });
    let worker = Worker::start(&coordinator, 1);
    let lease = stage(&[base]).run("true").submit(&coordinator);
    coordinator
        .until("it is held", |state| {
            state.syncs.iter().any(|(_, sync)| !sync.held.is_empty()).then_some(())
        })
        .await;
    let reason = AbandonReason::Superseded;
    coordinator.change(|state| state.abandon.push(Abandon { lease, reason }));
    coordinator.until("it is dropped", holds_nothing).await;
    assert!(coordinator.state().results.is_empty());
    worker.stop().await;
}

#[tokio::test]
async fn a_token_that_ended_is_renewed_and_the_stage_goes_on() {
    let coordinator = Coordinator::start().await;
    let base = base(&coordinator);
    let worker = Worker::start(&coordinator, 1);
    let lease = stage(&[base]).run("echo begun; sleep 1").submit(&coordinator);
    coordinator.until("it runs", has_line("begun")).await;
    for call in ["sync", "steps", "result"] {
        coordinator.change(|state| {
            state.faults.insert(call, [401].into());
        });
    }
    assert!(succeeded(&coordinator.result(lease).await));
    assert_eq!(coordinator.state().enrolments, 2);
    worker.stop().await;
}

#[tokio::test]
async fn calls_that_fail_for_a_moment_fail_no_stage() {
    for call in ["steps", "objects", "logs", "result", "sync"] {
        let coordinator = Coordinator::start().await;
        let base = base(&coordinator);
        coordinator.change(|state| {
            state.faults.insert(call, [503, 503].into());
        });
        let worker = Worker::start(&coordinator, 1);
        let lease =
            stage(&[base]).run("echo x > /out/x; echo done").slice("/out/x").submit(&coordinator);
        let result = coordinator.result(lease).await;
        assert!(succeeded(&result), "{call}: {result:?}");
        assert!(coordinator.lines(lease).iter().any(|(_, text)| text == "done"), "{call}");
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_coordinator_that_is_away_for_a_while_fails_no_stage() {
    let coordinator = Coordinator::start().await;
    let base = base(&coordinator);
    let worker = Worker::start(&coordinator, 1);
    let lease = stage(&[base])
        .run("echo begun; sleep 1")
        .run("echo x > /out/x")
        .slice("/out/x")
        .submit(&coordinator);
    coordinator.until("it runs", has_line("begun")).await;
    coordinator.change(|state| state.is_down = true);
    tokio::time::sleep(Duration::from_secs(8)).await;
    coordinator.change(|state| state.is_down = false);
    let result = coordinator.result(lease).await;
    assert!(succeeded(&result), "{result:?}");
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_stops_hands_its_stages_back() {
    let coordinator = Coordinator::start().await;
    let base = base(&coordinator);
    let worker = Worker::start_with(&coordinator, 2, |config| config.worker.drain_secs = 0);
    let running = stage(std::slice::from_ref(&base)).run("echo begun; sleep 1000");
    let running = running.submit(&coordinator);
    let missing = stage(std::slice::from_ref(&base)).slice("/out/x");
    let parked = stage(&[base]).copy_from(missing.lease, "/out/x", "/x").submit(&coordinator);
    coordinator.until("it runs", has_line("begun")).await;
    coordinator
        .until("one parks", |state| {
            let (_, sync) = state.syncs.last()?;
            let is_parked = |phase: &HeldPhase| matches!(phase, HeldPhase::Parked { .. });
            sync.held.iter().any(|held| is_parked(&held.phase)).then_some(())
        })
        .await;
    worker.stop().await;
    for lease in [running, parked] {
        let result = coordinator.result(lease).await;
        assert!(matches!(result.outcome, StageOutcome::HandedBack { .. }), "{result:?}");
    }
    assert!(coordinator.state().syncs.last().unwrap().1.draining);
}

#[tokio::test]
async fn a_worker_that_stops_lets_its_stages_end_within_the_grace_period() {
    let coordinator = Coordinator::start().await;
    let base = base(&coordinator);
    let worker = Worker::start(&coordinator, 1);
    let lease = stage(&[base]).run("echo begun; sleep 2").submit(&coordinator);
    coordinator.until("it runs", has_line("begun")).await;
    worker.stop().await;
    assert!(succeeded(&coordinator.result(lease).await));
}
