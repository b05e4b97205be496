//! Whole Dockerfiles of `tests/corpus`: what each is understood as, and what is planned for it.
//!
//! A last line `#! …` holds options of the build. The texts are snapshots beside the files; a change
//! of a key among them is a change of every key that users have stored.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use common::image::ContainerConfig;
use common::plan::{Base, Op, Plan, PlannedStage};
use dockerfile::{Planned, RemoteKind, parse};
use serde_json::Value;

use crate::planning::{Planning, tree};

/// Every file that a Dockerfile of the corpus copies.
const CONTEXT: &str = include_str!("../corpus/context");

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

fn config(env: &[&str], cmd: &[&str], on_build: &[&str]) -> ContainerConfig {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    ContainerConfig {
        env: owned(env),
        cmd: (!cmd.is_empty()).then(|| owned(cmd)),
        on_build: (!on_build.is_empty()).then(|| owned(on_build)),
        ..ContainerConfig::default()
    }
}

/// A Dockerfile with its options and surroundings.
fn planning(text: &str) -> Planning {
    let files: Vec<(&str, &str)> = CONTEXT.lines().map(|path| (path, "content")).collect();
    let base = "base-with-env";
    let mut planning = Planning::new(text)
        .context(tree(&files))
        .image("base-with-cmd", config(&["PATH=/bin"], &["of", "the", "base"], &[]))
        .image(base, config(&["PATH=/base", "OLD=kept", "LANG=en"], &["sh"], &[]))
        .image("base-with-triggers", config(&["PATH=/bin"], &[], &["ARG MODE=x", "RUN $MODE"]))
        .image("mcr.microsoft.com/dotnet/aspnet:8.0", config(&["APP_UID=1654"], &[], &[]));
    let options = text.lines().last().and_then(|line| line.strip_prefix("#! "));
    let words: Vec<&str> = options.unwrap_or_default().split(' ').collect();
    for pair in words.chunks_exact(2) {
        let name_and_value = || pair[1].split_once('=').unwrap();
        let of = &mut planning.options;
        match pair[0] {
            "--target" => of.target = Some(pair[1].to_owned()),
            "--platform" => of.platform = pair[1].parse().unwrap(),
            "--build-platform" => of.build_platform = pair[1].parse().unwrap(),
            "--label" | "--build-arg" => {
                let (name, value) = name_and_value();
                let map = if pair[0] == "--label" { &mut of.labels } else { &mut of.build_args };
                map.insert(name.to_owned(), value.to_owned());
            }
            other => panic!("no option of the corpus: {other}"),
        }
    }
    planning
}

/// The plan, with an answer to whatever it has to ask of servers.
fn planned(planning: &mut Planning) -> Result<Planned, Vec<common::Failure>> {
    loop {
        let planned = planning.run()?;
        if planned.remotes.is_empty() {
            return Ok(planned);
        }
        for need in planned.remotes {
            let answer = match need.kind {
                RemoteKind::File => "\"etag\"".to_owned(),
                RemoteKind::Repository(_) => "c0ffee00".repeat(5),
                RemoteKind::FileTime | RemoteKind::CommitTime(_) => "1700000000".to_owned(),
            };
            planning.options.remotes.insert((need.kind, need.url), answer);
        }
    }
}

/// Without what says nothing: members that are absent, false, empty text or lists, or the default.
fn bare(value: Value) -> Value {
    let says_nothing = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => matches!(text.as_str(), "" | "never" | "default" | "sandbox"),
        Value::Array(list) => list.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::Object(_) => false,
    };
    match value {
        Value::Object(members) => {
            let kept = members.into_iter().map(|(name, value)| (name, bare(value)));
            kept.filter(|(_, value)| !says_nothing(value)).collect()
        }
        Value::Array(list) => list.into_iter().map(bare).collect(),
        other => other,
    }
}

fn operation(op: &Op, last_env: &mut Vec<(String, String)>) -> String {
    let mut op = op.clone();
    if let Op::Run(run) = &mut op {
        if run.env == *last_env {
            run.env.clear();
        } else {
            last_env.clone_from(&run.env);
        }
    }
    bare(serde_json::to_value(op).unwrap()).to_string()
}

fn write_stage(text: &mut String, plan: &Plan, stage: &PlannedStage) {
    let base = match stage.base {
        Base::Scratch => "scratch".to_owned(),
        Base::Image(image) => plan.image(image).reference.clone(),
        Base::Stage(stage) => format!("stage {}", plan.stage(stage).label),
    };
    let _ = writeln!(
        text,
        "stage {} ({}) from {base} on {}, line {}",
        stage.label, stage.source_index, stage.platform, stage.lines
    );
    let mut last_env = Vec::new();
    for step in &stage.steps {
        let key = &step.key.hex()[..8];
        let _ = writeln!(text, "  {}. {key} {}", step.number, step.display);
        let _ = writeln!(text, "     {}", operation(&step.op, &mut last_env));
    }
    let config = bare(serde_json::to_value(&stage.config).unwrap());
    let _ = writeln!(text, "  config {config}");
    if let Some(author) = &stage.author {
        let _ = writeln!(text, "  author {author}");
    }
    for entry in stage.history.iter().filter(|entry| entry.empty_layer) {
        let _ = writeln!(text, "  history {}", entry.created_by.as_deref().unwrap_or_default());
    }
    for demand in &stage.demands {
        let of = |stage: &common::plan::StageIndex| plan.stage(*stage).label.clone();
        let consumers: Vec<String> = demand.consumers.iter().map(of).collect();
        let patterns = demand.selector.patterns();
        let _ = writeln!(text, "  gives {patterns:?} to {}", consumers.join(", "));
    }
}

/// What is shown of a Dockerfile.
fn shown(source: &str) -> String {
    let mut text = String::new();
    let file = match parse("Dockerfile", source.as_bytes()) {
        Ok(file) => file,
        Err(failures) => return format!("{failures:#?}"),
    };
    for line in file.instructions() {
        let _ = writeln!(text, "{line}");
    }
    text.push('\n');
    match planned(&mut planning(source)) {
        Ok(planned) => {
            for stage in &planned.plan.stages {
                write_stage(&mut text, &planned.plan, stage);
            }
            if let Some(epoch) = planned.epoch {
                let _ = writeln!(text, "epoch {epoch}");
            }
            let warnings = planned.warnings.iter().map(|warning| format!("warning {warning}"));
            let findings = planned.findings.iter().map(|finding| format!("finding {finding}"));
            for line in warnings.chain(findings) {
                let _ = writeln!(text, "{line}");
            }
        }
        Err(failures) => {
            for failure in failures {
                let _ = writeln!(text, "failure {} {}", failure.code, failure.message);
            }
        }
    }
    text
}

#[test]
fn the_corpus_is_understood_and_planned_as_ever() {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(corpus()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "Dockerfile") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            files.insert(name, std::fs::read_to_string(path).unwrap());
        }
    }
    assert!(files.len() >= 60, "{}", files.len());
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(corpus());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for (name, source) in files {
            insta::assert_snapshot!(name, shown(&source));
        }
    });
}
