//! What is not run twice: the same stage in two builds, and what reads the same files.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use api::public::v1::{BuildView, StageView};
use common::build::BuildState;
use common::stage::StageState;
use e2e::{Farm, FarmOptions, Ran};
use testkit::wait_for;

fn context(farm: &Farm, files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir_in(farm.directory()).unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(directory.path().join(name), mode).unwrap();
    }
    directory
}

fn build(farm: &Farm, directory: &Path, flags: &[&str]) -> Ran {
    let mut arguments = vec!["build", "--progress", "plain", directory.to_str().unwrap()];
    arguments.extend(flags);
    let ran = farm.slipway(arguments).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran
}

fn spawn(farm: &Farm, directory: &Path) -> Child {
    farm.spawn(["build", "--progress", "plain", directory.to_str().unwrap()]).unwrap()
}

fn stage<'a>(view: &'a BuildView, label: &str) -> &'a StageView {
    view.stages.iter().find(|stage| stage.label == label).unwrap()
}

fn steps(view: &BuildView, label: &str) -> Vec<String> {
    stage(view, label).steps.iter().map(|step| step.state.clone()).collect()
}

#[test]
fn a_producer_that_makes_the_same_again_costs_nothing_below_it() {
    let farm = Farm::start(FarmOptions { workers: 2, ..FarmOptions::default() }).unwrap();
    // What the compiler makes does not depend on the comments in its source.
    let dockerfile = "FROM alpine AS compiler\nCOPY source /\n\
                      RUN grep -v '^#' /source > /binary\n\
                      FROM alpine AS packed\nCOPY --from=compiler /binary /binary\n\
                      RUN cat /proc/sys/kernel/random/uuid > /id\n\
                      FROM packed AS tested\nRUN cat /proc/sys/kernel/random/uuid > /tested\n\
                      FROM scratch\nCOPY --from=tested /id /tested /binary /\n";
    let files = |source: &'static str| [("Dockerfile", dockerfile), ("source", source)];
    let image = |source: &'static str| {
        let directory = context(&farm, &files(source));
        let out = directory.path().join("out");
        build(&farm, directory.path(), &["-o", out.to_str().unwrap()]);
        let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
        (read("id"), read("tested"), read("binary"))
    };
    let first = image("# one\nx\n");
    let second = image("# two\nx\n");
    assert_eq!(second, first, "something ran again that reads the same");
    let view = farm.last_build().unwrap();
    assert_eq!(steps(&view, "compiler"), ["done", "done"]);
    for label in ["packed", "tested", "stage-3"] {
        assert!(steps(&view, label).iter().all(|state| state == "cached"), "{label}: {view:?}");
    }
    // Now its keys have it, too: nothing at all runs.
    assert_eq!(image("# two\nx\n"), first);
    let view = farm.last_build().unwrap();
    assert!(
        view.stages.iter().all(|stage| stage.state != StageState::Succeeded
            || stage.kind == common::stage::StageKind::Export),
        "{view:?}"
    );
    // And what is another binary is packed anew.
    let other = image("# two\ny\n");
    assert_ne!((&other.0, &other.1), (&first.0, &first.1));
    assert_eq!(other.2, "y\n");
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

/// A stage that runs until the file `go` is in the cache mount, and is no faster than its readers.
const SLOW: &str = "FROM alpine AS slow\n\
                    RUN echo begun && cat /proc/sys/kernel/random/uuid > /id && sleep 4 && echo ended\n";

fn running(farm: &Farm, count: usize) -> Vec<BuildView> {
    let mut found = Vec::new();
    wait_for("the builds run", Duration::from_mins(1), || {
        found = farm.builds().unwrap();
        found.retain(|view| {
            view.stages
                .iter()
                .any(|stage| matches!(stage.state, StageState::Running | StageState::Attached))
        });
        (found.len() == count).then_some(())
    })
    .unwrap();
    found
}

#[test]
fn two_builds_share_the_run_of_a_stage_and_its_log() {
    let farm = Farm::start(FarmOptions { workers: 2, ..FarmOptions::default() }).unwrap();
    let first = context(&farm, &[("Dockerfile", &format!("{SLOW}FROM slow\nRUN echo one\n"))]);
    let second = context(&farm, &[("Dockerfile", &format!("{SLOW}FROM slow\nRUN echo two\n"))]);
    let one = spawn(&farm, first.path());
    running(&farm, 1);
    let two = spawn(&farm, second.path());
    let outputs = [one.wait_with_output().unwrap(), two.wait_with_output().unwrap()];
    for output in &outputs {
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        assert!(text.contains("begun") && text.contains("ended"), "the log is missing: {text}");
    }
    let ran = farm.query("select count(*) from attempt a join stage_detail d using (stage_id) where d.label = 'slow'");
    assert_eq!(ran.unwrap().trim(), "1");
    let builds = farm.builds().unwrap();
    let shared: Vec<_> = builds.iter().filter_map(|view| stage(view, "slow").attached_to).collect();
    assert_eq!(shared.len(), 1, "{builds:?}");
    assert!(builds.iter().any(|view| view.id == shared[0].build));
    // It can be read afterwards, too.
    for view in &builds {
        let log = farm.slipway(["logs", &view.id.to_string()]).unwrap();
        assert!(log.stdout.contains("begun"), "{} {}", log.stdout, log.stderr);
    }
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn who_shares_a_run_gets_its_end_though_the_first_build_is_cancelled() {
    let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    let text = format!("{SLOW}FROM slow\nRUN true\n");
    let directory = context(&farm, &[("Dockerfile", &text)]);
    let mut one = spawn(&farm, directory.path());
    let first = running(&farm, 1)[0].id;
    let two = spawn(&farm, directory.path());
    running(&farm, 2);
    assert_eq!(farm.slipway(["cancel", &first.to_string()]).unwrap().code, 0);
    assert_eq!(one.wait().unwrap().code(), Some(130));
    let output = two.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let states: Vec<BuildState> = farm.builds().unwrap().iter().map(|view| view.state).collect();
    assert!(states.contains(&BuildState::Cancelled) && states.contains(&BuildState::Succeeded));
    let ran = farm.query("select count(*) from attempt a join stage_detail d using (stage_id) where d.label = 'slow'");
    assert_eq!(ran.unwrap().trim(), "1");
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn a_build_without_outputs_ends_with_its_last_step_and_the_next_one_has_its_layers() {
    let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    // Its layer takes a while to pack.
    let text =
        "FROM alpine AS big\nRUN head -c 60000000 /dev/urandom > /random\nFROM big\nRUN true\n";
    let directory = context(&farm, &[("Dockerfile", text)]);
    build(&farm, directory.path(), &["--target", "big"]);
    let first = farm.last_build().unwrap();
    assert_eq!(first.state, BuildState::Succeeded);
    build(&farm, directory.path(), &[]);
    let second = farm.last_build().unwrap();
    let big = stage(&second, "big");
    assert!(
        matches!(big.state, StageState::Cached | StageState::Skipped) || big.attached_to.is_some(),
        "{big:?}"
    );
    let ran = farm.query(
        "select count(*) from attempt a join stage_detail d using (stage_id) where d.label = 'big'",
    );
    assert_eq!(ran.unwrap().trim(), "1");
    // The digest is known a moment later.
    let view =
        farm.wait_for_build("the digest of its image", |view| !view.exports.is_empty()).unwrap();
    let digest = view.exports[0].digest.to_string();
    let waited = build(&farm, directory.path(), &["-q"]);
    assert_eq!(waited.stdout.trim(), view.exports[0].config_digest.to_string());
    assert_eq!(farm.last_build().unwrap().exports[0].digest.to_string(), digest);
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn it_says_why_steps_ran() {
    let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    let directory = context(&farm, &[]);
    let why = |dockerfile: &str, source: &str, flags: &[&str]| {
        std::fs::write(directory.path().join("Dockerfile"), dockerfile).unwrap();
        std::fs::write(directory.path().join("source"), source).unwrap();
        build(&farm, directory.path(), flags);
        // What was just stored is nobody's reason any more.
        farm.wait_for_build("the end of its stages", |view| {
            view.stages.iter().all(|stage| stage.state.is_terminal())
        })
        .unwrap();
        let said = farm.slipway(["why"]).unwrap();
        assert_eq!(said.code, 0, "{}", said.stderr);
        said.stdout
    };
    let text = "FROM alpine AS one\nARG VERSION=1\nRUN echo $VERSION > /v\nRUN true\n\
                FROM alpine AS two\nCOPY . /all/\nCOPY --from=one /v /\n";
    let said = why(text, "x", &[]);
    assert_eq!(said.matches("never built").count(), 4, "{said}");
    assert_eq!(why(text, "x", &[]), "nothing ran: every step was found in the cache\n");
    let said = why(text, "y", &[]);
    assert!(said.contains("files changed: /") && said.contains("~ source"), "{said}");
    assert!(said.contains("what it stands on is new"), "{said}");
    assert!(!said.contains("one  ("), "{said}");
    let said = why(text, "y", &["--build-arg", "VERSION=2"]);
    assert!(said.contains("VERSION 1 -> 2"), "{said}");
    assert!(said.contains("the stage that it reads is new"), "{said}");
    let said = why(text, "y", &["--build-arg", "VERSION=2", "--no-cache"]);
    assert!(said.contains("asked for without cache"), "{said}");
    let said = why(&text.replace("RUN true", "RUN echo"), "y", &["--build-arg", "VERSION=2"]);
    assert!(said.contains("instruction changed, it was: RUN true"), "{said}");
    farm.query("delete from cache_record").unwrap();
    let said = why(&text.replace("RUN true", "RUN echo"), "y", &["--build-arg", "VERSION=2"]);
    assert!(said.contains("evicted"), "{said}");
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn what_is_wholly_cached_needs_no_worker() {
    let mut farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    let text = "FROM alpine AS one\nRUN echo one > /one\nFROM scratch\nCOPY --from=one /one /\n";
    let directory = context(&farm, &[("Dockerfile", text)]);
    let first = build(&farm, directory.path(), &["-q"]);
    farm.wait_for_build("all is stored", |view| {
        view.stages.iter().all(|stage| stage.state.is_terminal())
    })
    .unwrap();
    farm.kill_worker("worker-1").unwrap();
    let second = build(&farm, directory.path(), &["-q"]);
    assert_eq!(second.stdout, first.stdout);
    let view = farm.last_build().unwrap();
    assert!(view.stages.iter().all(|stage| stage.attempts == 0), "{view:?}");
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn a_stage_goes_on_from_layers_that_are_not_stored_yet() {
    let farm = Farm::start(FarmOptions { workers: 2, ..FarmOptions::default() }).unwrap();
    // Each layer takes a while to pack, and the next stage reads and changes it.
    let text = "FROM alpine AS one\nRUN head -c 40000000 /dev/urandom > /random && mkdir /kept\n\
                FROM one AS two\nRUN head -c 40000000 /random > /copy && rm /random && touch /kept/x\n\
                FROM two AS three\nRUN cmp -n 100 /copy /copy && ls / > /names\n\
                FROM scratch\nCOPY --from=three /names /kept /\n";
    let directory = context(&farm, &[("Dockerfile", text)]);
    let out = directory.path().join("out");
    build(&farm, directory.path(), &["-o", out.to_str().unwrap()]);
    let names = std::fs::read_to_string(out.join("names")).unwrap();
    assert!(names.contains("copy") && !names.contains("random"), "{names}");
    assert!(out.join("x").exists());
    let view = farm
        .wait_for_build("all is stored", |view| {
            view.stages.iter().all(|stage| stage.state.is_terminal())
        })
        .unwrap();
    let workers: Vec<_> = view.stages[..3].iter().map(|stage| stage.worker.clone()).collect();
    assert!(workers.iter().all(|worker| *worker == workers[0]), "{workers:?}");
    // The layers are those that a worker without them can start from.
    farm.query("delete from cache_record where key in (select key from step where display like 'RUN cmp%')")
        .unwrap();
    let pushed = format!("{}/chain:1", farm.registry());
    build(&farm, directory.path(), &["--push", "--target", "three", "-t", &pushed]);
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn the_same_by_two_routes_is_one_result() {
    let farm = Farm::start(FarmOptions { workers: 2, ..FarmOptions::default() }).unwrap();
    let id = "RUN cat /proc/sys/kernel/random/uuid";
    let dockerfile = format!(
        "FROM alpine AS one\n{id} > /id\nFROM alpine AS two\n{id} > /id\n\
         FROM scratch AS both\nCOPY --from=one /id /one\nCOPY --from=two /id /two\n\
         FROM alpine AS left\nRUN echo x > /made\nFROM alpine AS right\nRUN echo 'x' > /made\n\
         FROM alpine AS from-left\nCOPY --from=left /made /made\n{id} > /id\n\
         FROM alpine AS from-right\nCOPY --from=right /made /made\n{id} > /id\n"
    );
    let directory = context(&farm, &[("Dockerfile", &dockerfile)]);
    let out = directory.path().join("out");
    let made = |target: &str, names: [&str; 2]| {
        let to = out.join(target);
        build(&farm, directory.path(), &["--target", target, "-o", to.to_str().unwrap()]);
        names.map(|name| std::fs::read_to_string(to.join(name)).unwrap())
    };
    // Two stages that do the same, in one build.
    let [one, two] = made("both", ["one", "two"]);
    assert_eq!(one, two);
    let view = farm.last_build().unwrap();
    assert_eq!(stage(&view, "one").attempts + stage(&view, "two").attempts, 1, "{view:?}");
    // What reads the same files is the same, whoever made them.
    let [left, files] = made("from-left", ["id", "made"]);
    let [right, same] = made("from-right", ["id", "made"]);
    assert_eq!((left, files), (right, same));
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}

#[test]
fn a_chain_whose_links_are_all_alike_ends() {
    let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    let dockerfile = "FROM scratch AS a\nCOPY f /f\nFROM a AS b\nCOPY --from=a /f /f\n\
                      FROM b AS c\nCOPY --from=b /f /f\nFROM scratch AS d\nCOPY --from=c /f /f\n\
                      FROM scratch\nCOPY --from=d / /\n";
    let directory = context(&farm, &[("Dockerfile", dockerfile), ("f", "same\n")]);
    let out = directory.path().join("out");
    let flags = ["-o", out.to_str().unwrap(), "--cache-to", "type=local,dest=cache"];
    for _ in 0..2 {
        build(&farm, directory.path(), &flags);
        assert_eq!(std::fs::read_to_string(out.join("f")).unwrap(), "same\n");
    }
    let view = farm.last_build().unwrap();
    let is_stage = |stage: &&StageView| stage.kind == common::stage::StageKind::Stage;
    let ran: u32 = view.stages.iter().filter(is_stage).map(|stage| stage.attempts).sum();
    assert_eq!(ran, 0, "{view:?}");
    assert_eq!(farm.stop_and_list_leftovers().unwrap(), Vec::<String>::new());
}
