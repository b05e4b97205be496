//! `slipway plan`: what a build would do, without doing it.

use api::public::v1::PlanView;
use api::public::v1::PlannedFate::{self, Cached, Run, Skipped};
use e2e::{Farm, FarmOptions};

const DOCKERFILE: &str = "FROM alpine AS one\nARG WHAT=a\nRUN echo $WHAT > /one\nFROM alpine\n\
                          COPY file /\nCOPY --from=one /one /\nRUN cat /one\n";

#[test]
fn a_plan_says_what_the_next_build_would_run_and_runs_nothing() {
    let farm = Farm::start(FarmOptions { workers: 1, ..FarmOptions::default() }).unwrap();
    let context = tempfile::tempdir_in(farm.directory()).unwrap();
    std::fs::write(context.path().join("Dockerfile"), DOCKERFILE).unwrap();
    std::fs::write(context.path().join("file"), "first").unwrap();
    let path = context.path().to_str().unwrap();
    let plan = |arguments: &[&str]| -> PlanView {
        let all = ["plan", "--json", path];
        let ran = farm.slipway(all.iter().chain(arguments)).unwrap();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap()
    };
    let fates = |plan: &PlanView| -> Vec<PlannedFate> {
        plan.stages.iter().flat_map(|stage| stage.steps.iter().map(|step| step.fate)).collect()
    };
    assert_eq!(fates(&plan(&[])), [Run; 4]);
    assert!(farm.last_build().is_err(), "a plan made a build");
    let built = farm.slipway(["build", "--progress", "plain", path]).unwrap();
    assert_eq!(built.code, 0, "{}", built.stderr);
    // The key parts are those that the build was looked up by; once all is uploaded, all hits.
    farm.wait_for_build("the uploads", |view| view.stages.iter().all(|s| s.state.is_terminal()))
        .unwrap();
    let again = plan(&[]);
    assert_eq!(fates(&again), [Skipped, Cached, Cached, Cached]);
    assert_eq!(again.stages[1].reads, ["one"]);
    assert!(again.stages[1].base.contains("alpine:latest@sha256:"), "{again:?}");

    // A changed file costs the copy and what is below it, a changed argument the other stage too.
    std::fs::write(context.path().join("file"), "second").unwrap();
    assert_eq!(fates(&plan(&[])), [Cached, Run, Run, Run]);
    let other = plan(&["--build-arg", "WHAT=b"]);
    assert_eq!(fates(&other), [Run; 4]);
    let parts = &other.stages[0].steps[0].key_parts;
    let value = parts.iter().find(|part| part.name == "variable WHAT").map(|part| &part.value);
    assert_eq!(value.map(String::as_str), Some("b"), "{parts:?}");
    assert_eq!(fates(&plan(&["--no-cache"])), [Run; 4]);

    // What cannot be planned says so as a build would.
    let bad = farm.slipway(["plan", "--target", "nine", path]).unwrap();
    assert_eq!(bad.code, 1);
    assert!(bad.stderr.contains("target stage \"nine\""), "{}", bad.stderr);
    let shown = farm.slipway(["plan", path]).unwrap().stdout;
    assert!(shown.contains("1 of 2 stages would run: 3 steps"), "{shown}");
}
