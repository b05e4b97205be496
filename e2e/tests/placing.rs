//! Builds beside others: the newer of one key, projects of different weights, and what a build asks of
//! its place.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::{Farm, FarmOptions};
use serde_json::json;
use testkit::wait_for;

fn context(farm: &Farm, name: &str, text: &str) -> PathBuf {
    let directory = farm.directory().join(name);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("Dockerfile"), text).unwrap();
    directory
}

fn build(directory: &Path, flags: &[&str]) -> Vec<String> {
    let all = ["build", "--progress", "plain", directory.to_str().unwrap()].into_iter();
    all.chain(flags.iter().copied()).map(str::to_owned).collect()
}

/// Waits until so many rows are there.
fn wait_until(farm: &Farm, rows: &str, count: usize) {
    let query = format!("select count(*) from {rows}");
    wait_for(rows, Duration::from_mins(1), || {
        (farm.query(&query).ok()?.trim() == count.to_string()).then_some(())
    })
    .unwrap();
}

#[test]
fn a_newer_build_of_the_same_key_ends_the_older_one() {
    let farm = Farm::start(FarmOptions { workers: 1, slots: 3, ..FarmOptions::default() }).unwrap();
    let slow =
        |name: &str| context(&farm, name, &format!("FROM alpine\nRUN echo {name} && sleep 600\n"));
    let (first, second, other) = (slow("first"), slow("second"), slow("other"));
    let running = "stage where state = 'running'";
    let older = farm.spawn(build(&first, &["--supersede", "main"])).unwrap();
    let kept = farm.spawn(build(&other, &["--supersede", "feature"])).unwrap();
    wait_until(&farm, running, 2);
    // A newer one by `build`.
    let middle = farm.spawn(build(&second, &["--supersede", "main"])).unwrap();
    let ended = older.wait_with_output().unwrap();
    assert!(!ended.status.success());
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains("a newer build of main has come"), "{said}");
    wait_until(&farm, "build where state = 'superseded'", 1);
    wait_until(&farm, running, 2);
    // And one by `bake`.
    let quick = context(&farm, "quick", "FROM alpine\nRUN echo quick\n");
    let file = farm.directory().join("docker-bake.json");
    std::fs::write(&file, json!({"target": {"default": {"context": quick}}}).to_string()).unwrap();
    let file = file.to_str().unwrap();
    let flags = [
        "--supersede=main",
        "--priority=7",
        "--timeout=1h",
        "--stage-timeout=30m",
        "--require=cpus=0.5",
    ];
    let all = ["bake", "--progress", "plain", "-f", file].into_iter().chain(flags);
    let ran = farm.slipway(all).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!middle.wait_with_output().unwrap().status.success());
    let newest = "from build order by created_at desc limit 1";
    let placed = farm.query(&format!("select priority, timeout_secs, supersede_key {newest}"));
    assert_eq!(placed.unwrap().trim(), "7|3600|main");
    let placed = "select timeout_secs, cpu_millis from stage s
                  where s.kind = 'stage' order by id desc limit 1";
    assert_eq!(farm.query(placed).unwrap().trim(), "1800|500");
    let states = "select count(*) filter (where state = 'superseded'),
                         count(*) filter (where state = 'running') from build";
    assert_eq!(farm.query(states).unwrap().trim(), "2|1", "another key is another matter");
    for view in farm.builds().unwrap() {
        let id = view.id.to_string();
        farm.slipway(["cancel", &id]).unwrap();
    }
    assert!(!kept.wait_with_output().unwrap().status.success());
}

#[test]
fn a_project_of_three_times_the_weight_has_three_of_four_slots() {
    /// Stages of each build.
    const STAGES: usize = 24;
    let mut farm =
        Farm::start(FarmOptions { workers: 1, slots: 4, ..FarmOptions::default() }).unwrap();
    let admin = farm.make_token("admin").unwrap();
    for (project, weight) in [("heavy", "300"), ("light", "100")] {
        let mut set = farm.command().unwrap();
        let set = set.env("SLIPWAY_TOKEN", &admin);
        let set = set.args(["projects", "set", project, "--weight", weight]).output().unwrap();
        assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    }
    farm.kill_worker("worker-1").unwrap();
    let builds = ["light", "heavy"].map(|project| {
        let stages = (0..STAGES).map(|stage| {
            format!("FROM alpine AS {project}-{stage}\nRUN sleep 0.3; echo {project} {stage}\n")
        });
        let targets: Vec<String> = (0..STAGES).map(|stage| format!("{project}-{stage}")).collect();
        let directory = context(&farm, project, &stages.collect::<Vec<_>>().concat());
        let file = directory.join("docker-bake.json");
        let target = |name: &String| (name.clone(), json!({"context": directory, "target": name}));
        let all = json!({
            "group": {"default": {"targets": targets}},
            "target": targets.iter().map(target).collect::<serde_json::Map<_, _>>(),
        });
        std::fs::write(&file, all.to_string()).unwrap();
        let file = file.to_str().unwrap();
        farm.spawn(["bake", "--progress", "plain", "--project", project, "-f", file]).unwrap()
    });
    wait_until(&farm, "stage where kind = 'stage' and state = 'ready'", 2 * STAGES);
    farm.restart_worker("worker-1").unwrap();
    for build in builds {
        let ended = build.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    // While both have something to run: the light one is not made to wait for the end of the other.
    let first = "select count(*) from (select project from stage where kind = 'stage'
                 order by started_at, id limit 24) first where project = 'heavy'";
    let heavy: usize = farm.query(first).unwrap().trim().parse().unwrap();
    assert!((16..=20).contains(&heavy), "{heavy} of the first 24 stages");
}
