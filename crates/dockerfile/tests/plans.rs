//! Whole Dockerfiles to plans.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use common::image::{ContainerConfig, ImageDocument, ResolvedImage};
use common::plan::{Base, CopyFrom, Op, Plan};
use common::tree::{Entry, EntryKind, Manifest, TreePath};
use common::{Digest, Failure, Platform};
use dockerfile::{Dockerfile, ImageFacts, Options, parse};

fn options() -> Options {
    let platform: Platform = "linux/amd64".parse().unwrap();
    Options::new(platform)
}

fn image(reference: &str, config: ContainerConfig) -> ResolvedImage {
    let digest = Digest::of(reference.as_bytes());
    let document = ImageDocument { config, ..ImageDocument::default() };
    ResolvedImage { reference: reference.to_owned(), digest, document, layers: Vec::new() }
}

fn context(files: &[(&str, &str, i64)]) -> Manifest {
    let mut entries = vec![entry("", EntryKind::Directory, 0)];
    for (path, content, mtime) in files {
        if let Some((directory, _)) = path.rsplit_once('/')
            && !entries.iter().any(|entry| entry.path.display() == directory)
        {
            entries.push(entry(directory, EntryKind::Directory, 0));
        }
        let digest = Digest::of(content.as_bytes());
        let kind = EntryKind::File { size_bytes: 0, digest, parts: Vec::new() };
        entries.push(entry(path, kind, *mtime));
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Manifest { packs: Vec::new(), entries }
}

fn entry(path: &str, kind: EntryKind, mtime_secs: i64) -> Entry {
    let path = TreePath::new(path).unwrap();
    Entry { path, mode: 0o644, uid: 0, gid: 0, mtime_secs, xattrs: Vec::new(), kind }
}

fn facts(file: &Dockerfile, options: &Options) -> Result<ImageFacts, Vec<Failure>> {
    let mut known = ImageFacts::new();
    loop {
        let missing = file.missing_images(options, &known)?;
        if missing.is_empty() {
            return Ok(known);
        }
        for need in missing {
            let mut config =
                ContainerConfig { env: vec!["PATH=/bin".into()], ..Default::default() };
            if need.reference == "onbuild" {
                config.on_build = Some(vec!["COPY --from=extra /x /x".into(), "ENV A=1".into()]);
            }
            let fact = image(&need.reference, config);
            known.insert((need.reference, need.platform), fact);
        }
    }
}

fn plan_with(text: &str, options: &Options, context: &Manifest) -> Result<Plan, Vec<Failure>> {
    let file = parse("Dockerfile", text.as_bytes())?;
    let known = facts(&file, options)?;
    Ok(file.plan(options, &known, Some(context))?.plan)
}

fn plan(text: &str) -> Plan {
    plan_with(text, &options(), &context(&[("main.go", "x", 0), ("src/a", "a", 0)])).unwrap()
}

fn failure(text: &str) -> Failure {
    let context = context(&[("main.go", "x", 0)]);
    plan_with(text, &options(), &context).unwrap_err().remove(0)
}

const TUTORIAL: &str = "FROM golang:1.13 AS builder\nWORKDIR /go/src/app\nCOPY main.go .\n\
    RUN go build -o app .\n\nFROM alpine:latest\nWORKDIR /root/\n\
    COPY --from=builder /go/src/app/app .\nCMD [\"./app\"]\n";

#[test]
fn the_tutorial_becomes_two_stages_and_one_slice() {
    let plan = plan(TUTORIAL);
    let [builder, last] = &plan.stages[..] else { panic!("{plan:?}") };
    assert_eq!((builder.label.as_str(), last.label.as_str()), ("builder", "stage-1"));
    assert!(matches!(builder.base, Base::Image(_)));
    assert_eq!(builder.steps.len(), 3);
    assert_eq!(builder.demands[0].selector.patterns(), ["/go/src/app/app"]);
    assert_eq!(builder.demands[0].consumers, [last.index]);
    assert_eq!(last.inputs(), [builder.index]);
    assert_eq!(last.config.cmd.as_deref(), Some(["./app".to_owned()].as_slice()));
    assert_eq!(last.config.working_dir, "/root");
    let Op::Copy(copy) = &last.steps[1].op else { panic!() };
    assert_eq!(copy.destination, "/root/");
    assert!(matches!(copy.from, CopyFrom::Stage { .. }));
    let Op::Run(run) = &builder.steps[2].op else { panic!() };
    assert_eq!(run.argv, ["/bin/sh", "-c", "go build -o app ."]);
    let layers = last.history.iter().filter(|entry| !entry.empty_layer).count();
    assert_eq!(layers, last.steps.len());
    let by_index = TUTORIAL.replace(" AS builder", "").replace("--from=builder", "--from=0");
    assert_eq!(self::plan(&by_index).stages[1].steps[1].op, last.steps[1].op);
}

#[test]
fn only_what_the_target_needs_is_planned() {
    let text = "FROM a AS one\nRUN x\nFROM b AS two\nRUN y\nFROM two AS three\nRUN z\nFROM c\nCOPY --from=one / /";
    let mut options = options();
    let labels = |options: &Options| -> Vec<String> {
        let plan = plan_with(text, options, &context(&[])).unwrap();
        plan.stages.iter().map(|stage| stage.label.clone()).collect()
    };
    assert_eq!(labels(&options), ["one", "stage-3"]);
    options.target = Some("Three".into());
    assert_eq!(labels(&options), ["two", "three"]);
}

#[test]
fn arguments_follow_their_scopes() {
    let text = "ARG V=1\nARG T=$V-x\nFROM img:$T\nARG V\nARG W=w\nENV E=$V$W\nRUN a\nENV W=env\nARG W=again\nRUN b";
    let mut options = options();
    options.build_args.insert("V".into(), "2".into());
    let plan = plan_with(text, &options, &context(&[])).unwrap();
    assert_eq!(plan.images[0].reference, "img:2-x");
    let env = |step: usize| -> Vec<String> {
        let Op::Run(run) = &plan.stages[0].steps[step].op else { panic!() };
        run.env.iter().map(|(name, value)| format!("{name}={value}")).collect()
    };
    assert_eq!(env(0), ["PATH=/bin", "V=2", "W=w", "E=2w"]);
    assert_eq!(env(1), ["PATH=/bin", "V=2", "W=again", "E=2w"]);
    assert_eq!(plan.stages[0].config.env, ["PATH=/bin", "E=2w", "W=env"]);
    let history = plan.stages[0].history[3].created_by.clone().unwrap();
    assert_eq!(history, "RUN |2 V=2 W=w /bin/sh -c a # buildkit");
}

#[test]
fn keys_change_with_what_a_step_sees_and_with_nothing_else() {
    let text = "FROM a\nCOPY src /x\nRUN y";
    let key = |files: &[(&str, &str, i64)], text: &str| {
        plan_with(text, &options(), &context(files)).unwrap().stages[0].key
    };
    let base = key(&[("src/a", "1", 0), ("other", "1", 0)], text);
    assert_eq!(base, key(&[("src/a", "1", 99), ("other", "2", 0)], text));
    assert_ne!(base, key(&[("src/a", "2", 0), ("other", "1", 0)], text));
    assert_ne!(base, key(&[("src/b", "1", 0), ("other", "1", 0)], text));
    assert_ne!(base, key(&[("src/a", "1", 0)], "FROM a\nCOPY src /x\nRUN z"));
    assert_ne!(base, key(&[("src/a", "1", 0)], "FROM b\nCOPY src /x\nRUN y"));
    assert_eq!(base, key(&[("src/a", "1", 0)], "FROM a\nCOPY src /x\nLABEL a=b\nRUN y"));
}

#[test]
fn triggers_of_a_base_fire_first_and_may_need_images() {
    let plan = plan("FROM onbuild\nRUN $A");
    assert_eq!(plan.images.len(), 2);
    let stage = &plan.stages[0];
    assert_eq!(stage.steps.len(), 2);
    assert!(stage.config.on_build.is_none());
    assert_eq!(stage.config.env, ["PATH=/bin", "A=1"]);
}

#[test]
fn heredocs_become_scripts_and_files() {
    let plan = plan(
        "FROM a\nARG V=1\nRUN <<EOF\necho $V\nEOF\nRUN <<X\n#!/usr/bin/env python\nx\nX\nCOPY <<f <<'g' /d/\n$V\nf\n$V\ng\n",
    );
    let steps = &plan.stages[0].steps;
    let Op::Run(run) = &steps[0].op else { panic!() };
    assert_eq!(run.argv[2], "echo $V\n");
    let Op::Run(run) = &steps[1].op else { panic!() };
    assert_eq!(run.argv[2], "/dev/pipes/X");
    assert!(run.script.as_ref().unwrap().content.starts_with("#!"));
    let Op::Copy(copy) = &steps[2].op else { panic!() };
    let contents: Vec<_> = copy.inline.iter().map(|file| file.content.as_str()).collect();
    assert_eq!(contents, ["1\n", "$V\n"]);
}

#[test]
fn mistakes_point_at_their_line_and_say_what_to_do() {
    for (text, code, line, hint) in [
        ("FROM a\nCOPY main.gp /", "missing-source", 2, "main.go"),
        ("FROM a AS build\nFROM b\nCOPY --from=5 /x /", "unknown-stage", 3, "counted from 0"),
        (
            "FROM a\nCOPY --from=late /x /\nFROM b AS late\nFROM scratch\nCOPY --from=0 /x /",
            "stage-order",
            2,
            "",
        ),
        ("FROM a\nRUN --mount=type=foo,target=/x y", "bad-mount", 2, ""),
        ("FROM a\nADD ssh://me:pw@x.test/y.git /", "bad-repository", 2, ""),
        ("FROM a\nENV X=${Y:Z}", "bad-substitution", 2, ""),
        ("FROM $NONE", "blank-base", 1, "before the first FROM"),
        ("FROM a\nEXPOSE 99999", "bad-port", 2, ""),
        ("FROM a\nSTOPSIGNAL FOO", "bad-signal", 2, ""),
        ("FROM a\nCOPY --chmod=64a main.go /", "bad-flag-value", 2, ""),
    ] {
        let found = failure(text);
        assert_eq!(found.code, code, "{text}: {found:?}");
        assert_eq!(found.lines.unwrap().start, line, "{text}");
        assert!(found.hint.clone().unwrap_or_default().contains(hint), "{text}: {found:?}");
        assert!(found.excerpt.is_some() && found.file.as_deref() == Some("Dockerfile"));
    }
    let mut options = options();
    options.target = Some("bilder".into());
    let text = "FROM a AS builder\nRUN x";
    let found = plan_with(text, &options, &context(&[])).unwrap_err().remove(0);
    assert_eq!(found.code, "unknown-target");
    assert_eq!(found.hint.as_deref(), Some("did you mean builder?"));
}

#[test]
fn several_mistakes_are_shown_at_once() {
    let failures = parse("Dockerfile", b"FROM a\nRUNN x\nCOPY a\nENV\n").unwrap_err();
    let lines: Vec<u32> = failures.iter().map(|failure| failure.lines.unwrap().start).collect();
    assert_eq!(lines, [2, 3, 4]);
}

#[test]
fn a_misspelt_stage_in_from_is_suggested_when_the_image_is_missing() {
    let file = parse("Dockerfile", b"FROM a AS builder\nFROM b\nCOPY --from=bulider /x /").unwrap();
    let needs = file.missing_images(&options(), &ImageFacts::new()).unwrap();
    let need = needs.iter().find(|need| need.reference == "bulider").unwrap();
    assert_eq!(need.hint.as_deref(), Some("did you mean the stage builder?"));
}

#[test]
fn proxies_reach_commands_but_no_key() {
    let mut with = options();
    with.build_args.insert("HTTP_PROXY".into(), "p".into());
    let text = "FROM a\nRUN x";
    let plain = plan_with(text, &options(), &context(&[])).unwrap();
    let proxied = plan_with(text, &with, &context(&[])).unwrap();
    assert_eq!(plain.stages[0].key, proxied.stages[0].key);
    let Op::Run(run) = &proxied.stages[0].steps[0].op else { panic!() };
    assert_eq!(run.unkeyed_env.len(), 2);
}
