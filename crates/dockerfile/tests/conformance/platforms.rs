//! One file for several platforms.

use common::Platform;
use common::plan::{Base, CopyFrom, Plan};
use dockerfile::Options;

use crate::planning::{Planning, copies, last};

fn merged(text: &str, platforms: &[&str]) -> Plan {
    let plans = platforms.iter().map(|platform| {
        let planning = Planning::new(text);
        let platform: Platform = platform.parse().unwrap();
        let options = Options { platform, ..planning.options.clone() };
        Planning { options, ..planning }.run().unwrap()
    });
    dockerfile::merge(plans.collect()).plan
}

fn labels(plan: &Plan) -> Vec<&str> {
    plan.stages.iter().map(|stage| stage.label.as_str()).collect()
}

const BOTH: [&str; 2] = ["linux/amd64", "linux/arm64"];

#[test]
fn what_does_not_ask_for_the_target_is_planned_once() {
    let text = "FROM --platform=$BUILDPLATFORM alpine AS tools\nRUN make tools\n\
                FROM --platform=$BUILDPLATFORM tools AS build\nARG TARGETARCH\nRUN make $TARGETARCH\n\
                FROM alpine\nCOPY --from=build /app /\nCOPY --from=tools /lib /lib\n";
    let plan = merged(text, &BOTH);
    let expected = ["tools", "build", "stage-2", "build (linux/arm64)", "stage-2 (linux/arm64)"];
    assert_eq!(labels(&plan), expected);
    let targets: Vec<u32> = plan.targets.iter().map(|target| target.stage.0).collect();
    assert_eq!(targets, [2, 4]);
    // Both builds start from the one stage of tools, and both results copy from it.
    assert_eq!(plan.stages[3].base, Base::Stage(plan.stages[0].index));
    let consumers: Vec<u32> =
        plan.stages[0].demands[0].consumers.iter().map(|consumer| consumer.0).collect();
    assert_eq!(consumers, [2, 4]);
    for (position, stage) in plan.stages.iter().enumerate() {
        assert_eq!(stage.index.0 as usize, position);
    }
    // The base is one image a platform.
    assert_eq!(plan.images.len(), 2);
}

#[test]
fn one_platform_twice_is_one_plan() {
    let text = "FROM alpine AS a\nRUN x\nFROM alpine\nCOPY --from=a /x /\n";
    let plan = merged(text, &["linux/amd64", "linux/amd64"]);
    assert_eq!((labels(&plan), plan.targets.len()), (vec!["a", "stage-1"], 2));
    assert_eq!(plan.targets[0].stage, plan.targets[1].stage);
}

#[test]
fn a_stage_has_the_platform_that_its_from_says() {
    let text = "FROM --platform=linux/s390x alpine AS a\nRUN x\nFROM --platform=linux/arm64 a\n";
    let plan = merged(text, &["linux/amd64"]);
    let platforms: Vec<String> =
        plan.stages.iter().map(|stage| stage.platform.to_string()).collect();
    // B14: that of a stage is its base's.
    assert_eq!(platforms, ["linux/s390x", "linux/s390x"]);
}

#[test]
fn several_targets_are_one_graph() {
    let text = "FROM alpine AS deps\nRUN fetch\nFROM deps AS app\nRUN make app\n\
                FROM deps AS tool\nRUN make tool\nFROM scratch AS docs\nCOPY file /\n";
    let plans = ["app", "tool"].map(|target| Planning::new(text).target(target).run().unwrap());
    let plan = dockerfile::merge(plans.into()).plan;
    assert_eq!(labels(&plan), ["deps", "app", "tool"]);
    let targets: Vec<u32> = plan.targets.iter().map(|target| target.stage.0).collect();
    assert_eq!(targets, [1, 2]);
    assert_eq!(plan.stages[2].base, Base::Stage(plan.stages[0].index));
}

#[test]
fn a_platform_may_be_a_system_or_an_architecture_alone() {
    let platform = |flag: &str| {
        let mut planning = Planning::new(&format!("FROM --platform={flag} a\nRUN x"));
        planning.options.platform = "linux/s390x".parse().unwrap();
        planning.options.build_platform = "linux/ppc64le".parse().unwrap();
        planning.last().platform.to_string()
    };
    assert_eq!(platform("arm64"), "linux/arm64");
    assert_eq!(platform("x86_64"), "linux/amd64");
    assert_eq!(platform("linux"), "linux/ppc64le");
    // An empty flag is none, as --from= is none.
    assert_eq!(platform(""), "linux/s390x");
    let failure = Planning::new("FROM --platform=amd46 a\nRUN x").failure();
    assert_eq!(failure, ("bad-platform".into(), 1));
    let stage = last("FROM a\nCOPY --from= file /x");
    assert_eq!(copies(&stage)[0].from, CopyFrom::Context);
}
