//! Commands that take too much: they are ended, named, and leave nothing.

use std::time::{Duration, Instant};

use api::public::v1::LogStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use worker::runtime::{DiskExcess, OutputChunk, RunExit, RunRequest, RuntimeConfig};

use crate::sandbox::{Ran, Sandbox, every_runtime, run};

/// Runs a script and makes sure that no cgroup of it is left.
async fn run_and_look(
    sandbox: &mut Sandbox,
    script: &str,
    change: impl FnOnce(&mut RunRequest),
) -> Ran {
    let step = sandbox.step();
    let mut request = sandbox.request(&step, &["/bin/sh", "-c", script]);
    change(&mut request);
    let id = request.id.clone();
    let ran = run(&sandbox.runtime, request).await.unwrap();
    assert_eq!(testkit::cgroups_named(&id), 0, "{script}");
    ran
}

#[tokio::test]
async fn a_fork_bomb_stays_in_its_box_and_dies_with_it() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        // The first process makes no other one after that: it would fail for want of room.
        let script = "bomb() { bomb | bomb & }; bomb & exec sleep 1000";
        let ran = run_and_look(&mut sandbox, script, |request| {
            request.limits.pids = Some(64);
            request.limits.timeout_secs = Some(2);
        })
        .await;
        assert!(ran.exit.timed_out, "{:?}", ran.exit);
        assert!(ran.stderr.contains("can't fork"));
    }
}

#[tokio::test]
async fn whoever_fills_the_disk_is_ended_at_its_share() {
    // One big file, many small ones, and one that has no name any more is no file of the layer.
    for script in [
        "dd if=/dev/zero of=/big bs=1M count=100000; sleep 1000",
        "mkdir /d; n=0; while true; do n=$((n+1)); head -c 200000 /dev/zero > /d/$n; done",
    ] {
        let config = RuntimeConfig { disk_bytes: 24 << 20, ..every_runtime()[0].clone() };
        let mut sandbox = Sandbox::new(&config);
        let ran = run_and_look(&mut sandbox, script, |_| {}).await;
        let Some(DiskExcess::Limit { written }) = ran.exit.disk else { panic!("{ran:?}") };
        assert!(written > 24 << 20);
    }
    let config = RuntimeConfig { disk_bytes: 24 << 20, ..every_runtime()[0].clone() };
    let mut sandbox = Sandbox::new(&config);
    let ran =
        run_and_look(&mut sandbox, "head -c 10000000 /dev/zero > /fits; sleep 1", |_| {}).await;
    assert_eq!((ran.exit.code, ran.exit.disk), (0, None));
}

#[tokio::test]
async fn a_disk_that_others_filled_is_not_the_commands_fault() {
    let config = RuntimeConfig { min_free_bytes: u64::MAX, ..every_runtime()[0].clone() };
    let mut sandbox = Sandbox::new(&config);
    let ran = run_and_look(&mut sandbox, "sleep 1000", |_| {}).await;
    assert_eq!(ran.exit.disk, Some(DiskExcess::Full));
}

#[tokio::test]
async fn silence_ends_a_command_and_any_output_does_not() {
    for config in every_runtime() {
        let config = RuntimeConfig { silence_secs: 1, ..config };
        let mut sandbox = Sandbox::new(&config);
        let ran = run_and_look(&mut sandbox, "echo x; sleep 1000", |_| {}).await;
        assert!(ran.exit.silent && ran.stdout == "x\n", "{ran:?}");
        let script = "for i in $(seq 8); do echo -n . >&2; sleep 0.25; done";
        let ran = run_and_look(&mut sandbox, script, |_| {}).await;
        assert_eq!((ran.exit.code, ran.exit.silent), (0, false), "{ran:?}");
    }
}

#[tokio::test]
async fn a_command_whose_output_nobody_takes_is_not_silent() {
    let config = RuntimeConfig { silence_secs: 1, ..every_runtime()[0].clone() };
    let mut sandbox = Sandbox::new(&config);
    let step = sandbox.step();
    let request = sandbox.request(&step, &["/bin/sh", "-c", "seq 1 100000"]);
    let (sender, mut receiver) = mpsc::channel::<OutputChunk>(1);
    let reader = tokio::spawn(async move {
        let first = receiver.recv().await;
        tokio::time::sleep(Duration::from_millis(1600)).await;
        let mut bytes = first.map_or(0, |chunk| chunk.bytes.len());
        while let Some(chunk) = receiver.recv().await {
            assert_eq!(chunk.stream, LogStream::Stdout);
            bytes += chunk.bytes.len();
        }
        bytes
    });
    let exit: RunExit =
        sandbox.runtime.run(request, sender, CancellationToken::new()).await.unwrap();
    assert_eq!((exit.code, exit.silent), (0, false));
    assert_eq!(reader.await.unwrap(), 588_895);
}

#[tokio::test]
async fn a_command_that_survives_the_death_of_a_child_succeeds_and_it_is_told() {
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        let script = "dd if=/dev/zero of=/dev/null bs=200M count=1; echo went on";
        let ran = run_and_look(&mut sandbox, script, |request| {
            request.limits.memory_bytes = Some(50 << 20);
        })
        .await;
        assert_eq!((ran.exit.code, ran.exit.oom), (0, true), "{ran:?}");
        assert_eq!(ran.stdout, "went on\n");
        let ran = run_and_look(&mut sandbox, "true", |request| {
            request.limits.memory_bytes = Some(50 << 20);
        })
        .await;
        assert!(!ran.exit.oom, "{ran:?}");
    }
}

#[tokio::test]
async fn processor_time_is_shared_out() {
    for config in every_runtime() {
        let config = RuntimeConfig { cpu_millis: 100, ..config };
        let mut sandbox = Sandbox::new(&config);
        let quota = "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null";
        let ran = run_and_look(&mut sandbox, quota, |_| {}).await;
        assert!(ran.stdout.starts_with("10000"), "{ran:?}");
    }
}

#[tokio::test]
async fn daemons_zombies_and_whoever_ignores_signals_end_with_the_command() {
    let script = "trap '' TERM HUP INT; for i in $(seq 20); do (sleep 0 &) ; done; \
                  (setsid sh -c 'trap \"\" TERM; (sleep 1000 &); exec sleep 1000' &); \
                  sleep 1000 > /out 2>&1 & echo done";
    for config in every_runtime() {
        let mut sandbox = Sandbox::new(&config);
        let begun = Instant::now();
        let ran = run_and_look(&mut sandbox, script, |_| {}).await;
        assert_eq!((ran.exit.code, ran.stdout.as_str()), (0, "done\n"), "{ran:?}");
        assert!(begun.elapsed() < Duration::from_mins(1));
        let ran = run_and_look(&mut sandbox, &format!("{script}; sleep 1000"), |request| {
            request.limits.timeout_secs = Some(1);
        })
        .await;
        assert!(ran.exit.timed_out, "{ran:?}");
    }
}
