//! Disks that are full.

use std::fs;

use api::worker::v1::{ResultReport, StageOutcome};
use common::FailureClass;
use worker::rootfs::{Mount, mount_memory};

use crate::coordinator::Coordinator;
use crate::jobs::{Worker, base, stage};

/// A file system of 16 MiB.
fn small_disk() -> (Mount, tempfile::TempDir) {
    let at = tempfile::tempdir().unwrap();
    (mount_memory(at.path()).unwrap(), at)
}

fn failure(result: &ResultReport) -> (FailureClass, &str) {
    let StageOutcome::Failed { failure, .. } = &result.outcome else { panic!("{result:?}") };
    (failure.class, &failure.code)
}

#[tokio::test]
async fn a_stage_that_fills_the_disk_is_to_run_elsewhere_and_the_worker_works_on() {
    let coordinator = Coordinator::start().await;
    let base = base(&coordinator);
    let (mount, disk) = small_disk();
    let worker = Worker::start_with(&coordinator, 1, |config| {
        config.worker.data_dir = disk.path().join("data");
    });
    let big = stage(std::slice::from_ref(&base));
    let big = big.run("head -c 100000000 /dev/zero > /out/x").submit(&coordinator);
    let result = coordinator.result(big).await;
    assert_eq!(failure(&result), (FailureClass::Infrastructure, "disk-full"), "{result:?}");
    let small = stage(&[base]).run("echo x > /out/x").submit(&coordinator);
    let result = coordinator.result(small).await;
    assert!(matches!(result.outcome, StageOutcome::Succeeded { .. }), "{result:?}");
    worker.stop().await;
    drop(mount);
}

#[tokio::test]
async fn a_layer_that_does_not_fit_is_told_as_a_full_disk_at_once() {
    let coordinator = Coordinator::start().await;
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("big"), vec![0; 40 << 20]).unwrap();
    let layer = crate::jobs::add_layer(&coordinator, root.path());
    let (mount, disk) = small_disk();
    let worker = Worker::start_with(&coordinator, 1, |config| {
        config.worker.data_dir = disk.path().join("data");
    });
    let lease = stage(&[layer]).run("true").submit(&coordinator);
    let result = coordinator.result(lease).await;
    assert_eq!(failure(&result), (FailureClass::Infrastructure, "disk-full"), "{result:?}");
    worker.stop().await;
    drop(mount);
}

#[tokio::test]
async fn a_worker_whose_disk_others_filled_takes_nothing_until_there_is_room() {
    let coordinator = Coordinator::start().await;
    let base = base(&coordinator);
    let (mount, disk) = small_disk();
    let filler = disk.path().join("filler");
    fs::write(&filler, vec![0; 14 << 20]).unwrap();
    let worker = Worker::start_with(&coordinator, 1, |config| {
        config.worker.data_dir = disk.path().join("data");
        config.worker.store_min_free_bytes = Some(10 << 20);
    });
    coordinator
        .until("it has no free slot", |state| {
            state.syncs.last().filter(|(_, sync)| sync.free_slots == 0).map(|_| ())
        })
        .await;
    let lease = stage(&[base]).run("echo x > /out/x").submit(&coordinator);
    let asked = coordinator.state().syncs.len();
    coordinator
        .until("it has asked again", |state| (state.syncs.len() > asked).then_some(()))
        .await;
    {
        let state = coordinator.state();
        assert!(state.ready.len() == 1 && state.syncs[asked].1.free_slots == 0);
    }
    fs::remove_file(filler).unwrap();
    let result = coordinator.result(lease).await;
    assert!(matches!(result.outcome, StageOutcome::Succeeded { .. }), "{result:?}");
    worker.stop().await;
    drop(mount);
}
