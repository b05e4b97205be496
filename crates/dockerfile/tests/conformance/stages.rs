//! Stages: names, references, what is needed.

use common::plan::{Base, CopyFrom, StageIndex};
use dockerfile::{ImageFacts, parse};

use crate::planning::{Planning, copies, last};

fn labels(planning: &Planning) -> Vec<String> {
    planning.plan().stages.into_iter().map(|stage| stage.label).collect()
}

#[test]
fn stage_names_know_no_case_but_from_does() {
    let plan = Planning::new("FROM a AS Build\nRUN x\nFROM b\nCOPY --from=BUILD /x /x").plan();
    assert_eq!(plan.stages[0].label, "build");
    assert!(matches!(
        copies(&plan.stages[1])[0].from,
        CopyFrom::Stage { stage: StageIndex(0), .. }
    ));
    assert_eq!(labels(&Planning::new("FROM a AS Build\nRUN x\nFROM b").target("bUILD")), ["build"]);
    let plan = Planning::new("FROM a AS foo\nRUN x\nFROM Foo\nRUN y").plan();
    assert_eq!(plan.stages.len(), 1, "Foo is an image, not the stage foo");
}

#[test]
fn of_two_stages_with_one_name_the_later_counts() {
    let plan = Planning::new("FROM a AS x\nRUN 1\nFROM b AS x\nRUN 2\nFROM x\nRUN 3").plan();
    let sources: Vec<u32> = plan.stages.iter().map(|stage| stage.source_index).collect();
    assert_eq!(sources, [1, 2]);
}

#[test]
fn only_copies_count_stages() {
    let plan = Planning::new("FROM a\nRUN x\nFROM b\nCOPY --from=0 /x /x").plan();
    assert_eq!(plan.stages.len(), 2);
    let plan = Planning::new("FROM a\nRUN x\nFROM 0\nRUN y").plan();
    assert_eq!((plan.stages.len(), plan.images[0].reference.as_str()), (1, "0"));
    assert_eq!(Planning::new("FROM a\nFROM b").target("0").failure().0, "unknown-target");
    assert_eq!(Planning::new("FROM a\nCOPY --from=0 /x /x").failure(), ("unknown-stage".into(), 2));
}

#[test]
fn a_later_stage_cannot_be_copied_from_where_that_matters() {
    let text = "FROM a AS one\nCOPY --from=two /x /x\nFROM b AS two\nRUN x";
    assert_eq!(labels(&Planning::new(text)), ["two"]);
    assert_eq!(Planning::new(text).target("one").failure(), ("stage-order".into(), 2));
    assert_eq!(Planning::new("FROM a AS me\nCOPY --from=me /x /x").failure().0, "stage-order");
}

#[test]
fn images_of_stages_that_nobody_needs_are_not_asked_for() {
    let text = "FROM nobody\nCOPY --from=nothing /x /x\nFROM b\nCOPY --from=c /x /x";
    let planning = Planning::new(text);
    let file = parse("Dockerfile", text.as_bytes()).unwrap();
    let needs = file.missing_images(&planning.options, &ImageFacts::new()).unwrap();
    let asked: Vec<_> =
        needs.iter().map(|need| (need.reference.as_str(), need.lines.start)).collect();
    assert_eq!(asked, [("b", 3), ("c", 4)]);
}

#[test]
fn a_stage_that_nobody_needs_still_has_to_be_written_well() {
    assert_eq!(
        Planning::new("FROM a\nRUNN x\nFROM b").failure(),
        ("unknown-instruction".into(), 2)
    );
    // But what cannot be built yet does no harm there.
    assert_eq!(labels(&Planning::new("FROM a\nRUN --mount=type=ssh x\nFROM b")), ["stage-1"]);
}

#[test]
fn one_image_is_asked_for_and_planned_once() {
    let text = "FROM a AS one\nRUN x\nFROM a AS two\nCOPY --from=one /x /x\nFROM a\nCOPY --from=two /x /x\nCOPY --from=a /y /y";
    let plan = Planning::new(text).plan();
    assert_eq!(plan.images.len(), 1);
    assert!(
        plan.stages.iter().all(|stage| matches!(stage.base, Base::Image(image) if image.0 == 0))
    );
}

#[test]
fn a_stage_from_a_stage_goes_on_where_it_ended() {
    let plan =
        Planning::new("FROM a AS base\nWORKDIR /w\nENV A=1\nUSER u\nFROM base\nCOPY file x\nRUN y")
            .plan();
    let [base, last] = &plan.stages[..] else { panic!() };
    assert_eq!(last.base, Base::Stage(base.index));
    assert_eq!((last.config.working_dir.as_str(), last.config.user.as_str()), ("/w", "u"));
    assert_eq!(copies(last)[0].destination, "/w/x");
    assert_eq!(last.inputs(), [base.index]);
    assert!(base.demands.is_empty(), "a base is shared as layers, not as files");
}

#[test]
fn scratch_is_empty_but_has_a_path() {
    let stage = last("FROM scratch");
    assert_eq!((stage.base, stage.steps.len(), stage.history.len()), (Base::Scratch, 0, 0));
    assert_eq!(stage.config.working_dir, "/");
    assert!(stage.config.env[0].starts_with("PATH=/usr/local/sbin:"));
}

#[test]
fn equal_copies_of_several_stages_are_one_slice() {
    let text = "FROM a AS p\nRUN x\nFROM b AS one\nCOPY --from=p /o/b /o/a /x/\nFROM b AS two\n\
        COPY --from=p /o/a /o/b /y/\nCOPY --from=p /z /z\nFROM c\nCOPY --from=one / /\nCOPY --from=two / /";
    let plan = Planning::new(text).plan();
    let demands: Vec<_> = plan.stages[0]
        .demands
        .iter()
        .map(|demand| (demand.selector.patterns().to_vec(), demand.consumers.clone()))
        .collect();
    let path = |path: &str| path.to_owned();
    assert_eq!(
        demands,
        [
            (vec![path("/o/a"), path("/o/b")], vec![StageIndex(1), StageIndex(2)]),
            (vec![path("/z")], vec![StageIndex(2)]),
        ]
    );
}

#[test]
fn relative_sources_of_a_stage_start_at_its_root() {
    let text = "FROM a AS p\nWORKDIR /deep\nFROM b\nWORKDIR /w\nCOPY --from=p out/../bin/* ./to/";
    let stage = last(text);
    assert_eq!(
        (copies(&stage)[0].sources[0].as_str(), copies(&stage)[0].destination.as_str()),
        ("/bin/*", "/w/to/")
    );
}

#[test]
fn sources_cannot_climb_out_of_the_context() {
    let stage = last("FROM a\nCOPY ../../file ./../dir /x/");
    assert_eq!(copies(&stage)[0].sources, ["/file", "/dir"]);
}

#[test]
fn triggers_fire_first_and_only_in_the_next_stage() {
    let text = "FROM a AS base\nONBUILD ENV T=1\nONBUILD COPY file /f\nFROM base AS mid\nRUN $T\nFROM mid\nRUN y";
    let plan = Planning::new(text).plan();
    assert_eq!(plan.stages[1].steps.len(), 2);
    assert_eq!(plan.stages[1].steps[0].lines.start, 4, "a trigger is blamed on FROM");
    assert_eq!(plan.stages[2].steps.len(), 1);
    assert_eq!(plan.stages[0].config.on_build.clone().unwrap(), ["ENV T=1", "COPY file /f"]);
    assert!(plan.stages[1].config.on_build.is_none() && plan.stages[2].config.on_build.is_none());
    for bad in ["ONBUILD ONBUILD RUN x", "ONBUILD FROM a", "ONBUILD MAINTAINER a", "ONBUILD"] {
        let text = format!("FROM a\n{bad}");
        assert_eq!(parse("f", text.as_bytes()).unwrap_err()[0].code, "bad-onbuild", "{bad}");
    }
}

#[test]
fn steps_are_numbered_behind_from_and_match_history() {
    let stage = last("FROM a\nENV A=1\nWORKDIR /x\nRUN y\nLABEL l=1\nCOPY file .\nCMD z");
    let numbers: Vec<u32> = stage.steps.iter().map(|step| step.number).collect();
    assert_eq!(numbers, [2, 3, 4]);
    let lines: Vec<u32> = stage.steps.iter().map(|step| step.lines.start).collect();
    assert_eq!(lines, [3, 4, 6]);
    assert_eq!(stage.history.iter().filter(|entry| !entry.empty_layer).count(), 3);
    assert_eq!(stage.key, stage.steps[2].key);
}

#[test]
fn what_the_stable_frontend_of_buildkit_refuses_is_refused() {
    let device = parse("Dockerfile", b"FROM a\nRUN --device=vendor.com/class=x y").unwrap_err();
    assert!(device[0].message.contains("1.14.0-labs"), "{device:?}");
}
