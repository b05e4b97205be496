//! What a build asks of workers.

use e2e::{Farm, FarmOptions};

#[test]
fn stages_run_on_workers_that_have_what_they_require() {
    let mut farm = Farm::start(FarmOptions { workers: 2, ..FarmOptions::default() }).unwrap();
    let path = farm.directory().join("worker-2.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let offer =
        "[worker]\nlabels = [\"disk=fast\"]\ncpu_millis = 2000\nmemory_bytes = 1073741824\n";
    std::fs::write(&path, text.replace("[worker]\n", offer)).unwrap();
    farm.kill_worker("worker-2").unwrap();
    farm.restart_worker("worker-2").unwrap();
    let directory = tempfile::tempdir_in(farm.directory()).unwrap();
    std::fs::write(directory.path().join("Dockerfile"), "FROM alpine\nRUN true\n").unwrap();
    let context = directory.path().to_str().unwrap();
    let limits = ["--timeout", "2m", "--stage-timeout", "1m", "--priority", "5"];
    let needs = ["--require", "disk=fast", "--require", "cpus=2", "--require", "memory=1g"];
    let all = ["build", context].into_iter().chain(limits).chain(needs);
    let ran = farm.slipway(all).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let stages = farm.last_build().unwrap().stages;
    assert_eq!(stages[0].worker.as_deref(), Some("worker-2"));
    let stored = "select priority, timeout_secs from build";
    assert_eq!(farm.query(stored).unwrap().trim(), "5|120");
    let listed = farm.slipway(["workers"]).unwrap().stdout;
    assert!(listed.contains("2.0 CPUs") && listed.contains("disk=fast"), "{listed}");

    // What no worker has ends with the build's time, and says why before.
    let asks = ["build", context, "--no-cache", "--require", "gpu", "--timeout", "4s"];
    let ran = farm.slipway(asks).unwrap();
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("did not end within 4 s"), "{}", ran.stderr);
    let reason = farm
        .query("select unplaceable_reason from stage where unplaceable_reason is not null")
        .unwrap();
    assert!(reason.contains("it needs") && reason.contains("gpu"), "{reason}");
}
