//! What happens when something dies in the middle.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::io::Read as _;
use std::path::PathBuf;

use common::build::BuildState;
use common::stage::StageState;
use e2e::{Farm, FarmOptions};
use rustix::process::{Pid, Signal, kill_process};

fn context(farm: &Farm, dockerfile: &str) -> PathBuf {
    let directory = tempfile::tempdir_in(farm.directory()).unwrap().keep();
    std::fs::write(directory.join("Dockerfile"), dockerfile).unwrap();
    directory
}

/// Waits until a running step has written `word`, and gives the worker that runs it.
fn worker_that_wrote(farm: &Farm, word: &str) -> String {
    let line = |log: &str| log.lines().any(|line| line.ends_with(word));
    let view = farm
        .wait_for_build("a line of the log", |view| {
            view.stages.iter().any(|stage| stage.state == StageState::Running)
                && farm.last_log().is_ok_and(|log| line(&log))
        })
        .unwrap();
    let running = view.stages.iter().find(|stage| stage.state == StageState::Running).unwrap();
    running.worker.clone().unwrap()
}

fn finish(child: std::process::Child) -> (i32, String) {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

#[test]
fn a_killed_worker_costs_its_stage_and_not_the_build() {
    let mut farm = Farm::start(FarmOptions::default()).unwrap();
    // The second attempt finds nothing to wait for: the file is on the other worker's disk only.
    let text = "FROM alpine\nRUN echo before; sleep 2; echo after\nRUN echo end > /end\n";
    let directory = context(&farm, text);
    let name = format!("{}/survivor:1", farm.registry());
    let build = farm
        .spawn(["build", "--progress", "plain", "--push", "-t", &name, directory.to_str().unwrap()])
        .unwrap();
    let victim = worker_that_wrote(&farm, "before");
    farm.kill_worker(&victim).unwrap();
    let (code, text) = finish(build);
    assert_eq!(code, 0, "{text}");
    let view = farm.last_build().unwrap();
    assert_eq!(view.state, BuildState::Succeeded);
    assert_eq!(view.stages[0].attempts, 2);
    assert_ne!(view.stages[0].worker.as_ref(), Some(&victim));
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn a_restarted_coordinator_ends_no_running_step() {
    let mut farm =
        Farm::start(FarmOptions { workers: 1, lost_after_secs: 10, ..FarmOptions::default() })
            .unwrap();
    let text = "FROM alpine\nRUN echo before; sleep 3; echo after\n";
    let directory = context(&farm, text);
    let build = farm.spawn(["build", "--progress", "plain", directory.to_str().unwrap()]).unwrap();
    worker_that_wrote(&farm, "before");
    farm.kill_coordinator().unwrap();
    farm.restart_coordinator().unwrap();
    let (code, text) = finish(build);
    assert_eq!(code, 0, "{text}");
    let view = farm.last_build().unwrap();
    assert_eq!(view.stages[0].attempts, 1, "the step was run twice");
    let log = farm.last_log().unwrap();
    assert_eq!(log.matches("before").count(), log.matches("after").count(), "{log}");
}

#[test]
fn without_redis_builds_go_on() {
    let mut farm = Farm::start(FarmOptions::default()).unwrap();
    farm.redis().kill().unwrap();
    let directory = context(&farm, "FROM alpine\nRUN echo works\n");
    let ran = farm.slipway(["build", "--progress", "plain", directory.to_str().unwrap()]).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("works"), "{}", ran.stderr);
}

#[test]
fn an_interrupted_build_is_cancelled_on_the_farm() {
    let farm =
        Farm::start(FarmOptions { workers: 1, lost_after_secs: 10, ..FarmOptions::default() })
            .unwrap();
    let directory = context(&farm, "FROM alpine\nRUN echo before; sleep 1000\n");
    let mut build =
        farm.spawn(["build", "--progress", "plain", directory.to_str().unwrap()]).unwrap();
    worker_that_wrote(&farm, "before");
    let pid = Pid::from_raw(i32::try_from(build.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(build.wait().unwrap().code(), Some(130));
    let mut text = String::new();
    build.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("cancel"), "{text}");
    let view = farm
        .wait_for_build("the end of its stages", |view| {
            view.stages.iter().all(|stage| stage.state.is_terminal())
        })
        .unwrap();
    assert_eq!(view.state, BuildState::Cancelled);
    // The slot is free again.
    let directory = context(&farm, "FROM alpine\nRUN echo next\n");
    assert_eq!(farm.slipway(["build", directory.to_str().unwrap()]).unwrap().code, 0);
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn a_retry_runs_what_failed_and_nothing_else() {
    let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    // Fails the first time that it runs on this worker.
    let text = "FROM alpine AS made\nRUN cat /proc/sys/kernel/random/uuid > /id\n\
         FROM made\nRUN --mount=type=cache,target=/seen test -e /seen/it || { touch /seen/it; exit 7; }\n";
    let directory = context(&farm, text);
    let built =
        farm.slipway(["build", "--progress", "plain", directory.to_str().unwrap()]).unwrap();
    assert_eq!(built.code, 1, "{}", built.stderr);
    let first = farm.last_build().unwrap();
    let retried = farm.slipway(["retry", "--progress", "plain", "last"]).unwrap();
    assert_eq!(retried.code, 0, "{}", retried.stderr);
    let second = farm.last_build().unwrap();
    assert_eq!((second.id, second.state), (first.id, BuildState::Succeeded));
    // The stage that went well is the one of the first time.
    assert_eq!(second.stages[0], first.stages[0]);
    assert_eq!(second.exports.len(), 1);
    let again = farm.slipway(["retry", "last"]).unwrap();
    // Refused requests are the user's, like all of them.
    assert_eq!(again.code, 1, "{}", again.stderr);
    assert!(again.stderr.contains("has not failed"), "{}", again.stderr);
}
