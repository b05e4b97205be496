//! Limits as a stage that reaches them reports them.

use api::worker::v1::StageOutcome;
use common::{Failure, FailureClass, Lease};

use crate::coordinator::Coordinator;
use crate::jobs::{Worker, base, stage};

/// Runs one command on a worker with changed settings.
async fn run(
    script: &str,
    change: impl FnOnce(&mut worker::Config),
) -> (Option<Failure>, Vec<String>) {
    let coordinator = Coordinator::start().await;
    let base = base(&coordinator);
    let worker = Worker::start_with(&coordinator, 1, change);
    let lease: Lease = stage(&[base]).run(script).submit(&coordinator);
    let failure = match coordinator.result(lease).await.outcome {
        StageOutcome::Failed { failure, .. } => Some(failure),
        StageOutcome::Succeeded { .. } => None,
        handed_back @ StageOutcome::HandedBack { .. } => panic!("{handed_back:?}"),
    };
    let lines = coordinator.lines(lease).into_iter().map(|(_, text)| text).collect();
    assert_eq!(coordinator.state().refused_bodies, 0);
    worker.stop().await;
    (failure, lines)
}

#[tokio::test]
async fn each_limit_has_a_name_of_its_own() {
    let check = |found: Option<Failure>, code: &str, word: &str| {
        let failure = found.unwrap();
        assert_eq!((failure.class, failure.code.as_str()), (FailureClass::Resource, code));
        assert!(failure.message.contains(word), "{failure}");
        assert!(failure.hint.as_deref().unwrap_or_default().contains("runtime."), "{failure}");
    };
    let script = "cat /dev/zero > /big";
    let (failure, _) = run(script, |config| config.runtime.disk_bytes = 16 << 20).await;
    check(failure, "disk-limit", "more than the 16 MiB");
    let (failure, _) = run("sleep 1000", |config| config.runtime.silence_secs = 1).await;
    check(failure, "silence", "nothing for 1 seconds");
    let (failure, _) = run("sleep 1000", |config| config.runtime.timeout_secs = 1).await;
    check(failure, "timeout", "too long");
    let (failure, lines) = run("head -c 200000000 /dev/zero | tail -n 1", |config| {
        config.runtime.memory_bytes = 50 << 20;
    })
    .await;
    check(failure, "out-of-memory", "MiB");
    assert!(lines.iter().any(|line| line.contains("want of memory")), "{lines:?}");
}

#[tokio::test]
async fn a_full_disk_sends_the_stage_elsewhere() {
    let (failure, _) = run("sleep 1000", |config| config.runtime.min_free_bytes = u64::MAX).await;
    let failure = failure.unwrap();
    assert_eq!((failure.class, failure.code.as_str()), (FailureClass::Infrastructure, "disk-full"));
}

#[tokio::test]
async fn of_a_flood_of_lines_beginning_and_end_are_kept_and_the_rest_counted() {
    let script = "seq 1 500000; echo the end >&2";
    let (failure, lines) = run(script, |config| config.runtime.log_bytes = 1 << 20).await;
    assert!(failure.is_none(), "{failure:?}");
    let notice = lines.iter().position(|line| line.contains("left out here")).unwrap();
    let number = |line: &String| line.parse::<u64>().unwrap();
    // Line 0 is the instruction itself.
    assert!(lines[1..notice].iter().map(number).eq(1..notice as u64));
    let kept: usize = lines.iter().map(|line| line.len() + 1).sum();
    assert!(kept < (1 << 20) + (65 << 10), "{kept}");
    let end = &lines[notice + 1..];
    assert!(end.contains(&"the end".to_owned()) && end.contains(&"500000".to_owned()));
    let dropped = lines[notice].split(' ').nth(1).unwrap().parse::<usize>().unwrap();
    assert_eq!(notice - 1 + dropped + end.len(), 500_001);
}

#[tokio::test]
async fn a_line_without_end_is_cut_and_bounded_too() {
    let script = "head -c 100000000 /dev/zero";
    let (failure, lines) = run(script, |config| config.runtime.log_bytes = 1 << 20).await;
    assert!(failure.is_none(), "{failure:?}");
    let kept: usize = lines.iter().map(String::len).sum();
    assert!(kept < (1 << 20) + (70 << 10), "{kept}");
    assert!(lines.iter().any(|line| line.contains("left out here")));
}
