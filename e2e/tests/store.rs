//! A worker's store that is far too small for what is built.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::{Farm, FarmOptions};
use testkit::wait_for;

/// Room for a base image and some layers.
const CAP: u64 = 30 << 20;

fn build(farm: &Farm, dockerfile: &str) {
    let directory = tempfile::tempdir_in(farm.directory()).unwrap();
    std::fs::write(directory.path().join("Dockerfile"), dockerfile).unwrap();
    let name = format!("{}/small-store:1", farm.registry());
    let path = directory.path().to_str().unwrap();
    let ran = farm.slipway(["build", "--progress", "plain", "--push", "-t", &name, path]).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

fn usage(farm: &Farm) -> serde_json::Value {
    let ran = farm.store("worker-1", ["du", "--json"]).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}

fn total(farm: &Farm) -> u64 {
    usage(farm)["total_bytes"].as_u64().unwrap()
}

/// Layers of 3 MB that do not compress; their blobs are kept as well.
fn dockerfile(number: u32, more: &str) -> String {
    format!(
        "FROM alpine AS base\n\
         RUN head -c 3000000 /dev/urandom > /first-{number}\n\
         RUN head -c 3000000 /dev/urandom > /second-{number}\n\
         FROM base\n\
         RUN test \"$(wc -c < /first-{number})\" = 3000000\n\
         COPY --from=base /second-{number} /copied\n{more}"
    )
}

#[test]
fn a_worker_with_a_tiny_store_stays_below_its_cap_and_builds() {
    let options = FarmOptions { workers: 1, store_max_bytes: Some(CAP), ..FarmOptions::default() };
    let mut farm = Farm::start(options).unwrap();
    for number in 0..6 {
        build(&farm, &dockerfile(number, ""));
        wait_for("it is below its cap", Duration::from_secs(30), || {
            (total(&farm) <= CAP).then_some(())
        })
        .unwrap();
    }
    // What the first build made went long ago; it is fetched again.
    // The last step's layer is new, so its blob is what was used last.
    let more =
        "RUN test \"$(wc -c < /copied)\" = 3000000\nRUN head -c 100000 /dev/urandom > /new\n";
    build(&farm, &dockerfile(0, more));
    damage(&farm);
    // Nothing is left but the worker, which goes on.
    let ran = farm.store("worker-1", ["gc", "--all"]).unwrap();
    assert!(ran.code == 0 && ran.stdout.starts_with("evicted "), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(total(&farm), 0);
    build(&farm, &dockerfile(0, "RUN cmp /copied /second-0\n"));
    // The same without a worker.
    farm.kill_worker("worker-1").unwrap();
    assert!(total(&farm) > 0);
    assert_eq!(farm.store("worker-1", ["verify"]).unwrap().code, 0);
    let ran = farm.store("worker-1", ["gc", "--max-bytes", "1000000"]).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(total(&farm) <= 1_000_000);
    farm.restart_worker("worker-1").unwrap();
    build(&farm, &dockerfile(5, "RUN cmp /copied /second-5\n"));
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

/// Damages a blob: it is found, moved aside, and not missed.
fn damage(farm: &Farm) {
    let ran = farm.store("worker-1", ["verify"]).unwrap();
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let usage = usage(farm);
    let entries = usage["entries"].as_array().unwrap();
    let is_blob = |entry: &&serde_json::Value| entry["kind"] == "blob";
    let blob = entries.iter().find(is_blob).unwrap_or_else(|| panic!("{usage:#}"));
    let blob = farm.worker_data("worker-1").join(blob["name"].as_str().unwrap());
    std::fs::write(&blob, "damaged").unwrap();
    let ran = farm.store("worker-1", ["verify"]).unwrap();
    assert_eq!(ran.code, 1, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("damaged: blobs/"), "{}", ran.stdout);
    assert!(!blob.exists() && count(&farm.worker_data("worker-1").join("damaged")) == 1);
    build(farm, &dockerfile(4, "RUN test -s /copied\n"));
}

fn count(directory: &Path) -> usize {
    let entries: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.len()
}
