//! The whole plan.

use common::Failure;
use common::plan::{Plan, PlanTarget, StageIndex};
use common::tree::Manifest;

use super::{graph, stage};
use crate::checks::{Config, Finding, of_froms};
use crate::diagnostic::Problem;
use crate::source::is_own_frontend;
use crate::{Dockerfile, ImageFacts, ImageNeed, Options, Planned};

/// How many failures are told at once.
const MAX_FAILURES: usize = 20;

/// What planning came to.
pub(crate) enum Outcome {
    /// These images have to be looked up first.
    Missing(Vec<ImageNeed>),
    /// The plan.
    Planned(Box<Planned>),
}

/// What is known of the context.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Files<'a> {
    /// Nothing: whatever is copied counts as there.
    Unknown,
    /// All of it; none is an empty one.
    Known(Option<&'a Manifest>),
}

/// The images that have to be looked up before the file can be planned.
pub(crate) fn missing_images(
    file: &Dockerfile,
    options: &Options,
    known: &ImageFacts,
) -> Result<Vec<ImageNeed>, Vec<Failure>> {
    Ok(graph::build(file, options, known)?.missing)
}

/// Plans.
pub(crate) fn plan(
    file: &Dockerfile,
    options: &Options,
    known: &ImageFacts,
    files: Files<'_>,
) -> Result<Outcome, Vec<Failure>> {
    let config = config(file, options).map_err(|failure| vec![failure])?;
    if let Some(name) = options.build_args.get("BUILDKIT_SYNTAX")
        && !is_own_frontend(name)
    {
        let problem =
            Problem::new("other-frontend", format!("the frontend {name:?} is not supported"))
                .with_hint("BUILDKIT_SYNTAX can name docker/dockerfile:1, which is built in");
        return Err(vec![file.source.failure(problem, file.stages[0].lines)]);
    }
    let graph = graph::build(file, options, known)?;
    if !graph.missing.is_empty() {
        return Ok(Outcome::Missing(graph.missing));
    }
    let mut planner = stage::Planner::new(file, options, known, files, &graph);
    let mut failures = Vec::new();
    for position in 0..graph.stages.len() {
        failures.append(&mut planner.stage(position));
        if failures.len() >= MAX_FAILURES
            || failures.iter().any(|failure| failure.code == Problem::TOO_MUCH)
        {
            break;
        }
    }
    if !failures.is_empty() {
        return Err(failures);
    }
    let mut findings = file.findings.clone();
    findings.extend(of_froms(file, options, &graph.global));
    let epoch = graph.global.epoch.seconds;
    let outline = file.outline(options, &graph, &planner.stages, &planner.variables);
    let mut remotes = std::mem::take(&mut planner.remotes);
    remotes.extend(graph.global.epoch.need.clone());
    let reach = planner.reach();
    let (stages, images, consumed, found) = planner.finish();
    findings.extend(found);
    let findings = config.filter(findings, &file.comments);
    let mut warnings = Vec::new();
    let unused: Vec<_> =
        options.build_args.keys().filter(|name| !consumed.contains(*name)).cloned().collect();
    if !unused.is_empty() {
        warnings.push(format!("build-args that no ARG declares: {}", unused.join(", ")));
    }
    let violation = violation(file, &config, &findings);
    let target = StageIndex(u32::try_from(stages.len() - 1).unwrap_or(0));
    let targets = vec![PlanTarget { stage: target, platform: options.platform.clone() }];
    let plan = Plan { stages, targets, images };
    Ok(Outcome::Planned(Box::new(Planned {
        plan,
        epoch,
        remotes,
        warnings,
        outline,
        findings,
        violation,
        reach,
    })))
}

/// Which checks count: a build argument wins over the directive.
fn config(file: &Dockerfile, options: &Options) -> Result<Config, Failure> {
    let given = options.build_args.get("BUILDKIT_DOCKERFILE_CHECK");
    let directive = file.source.check.as_ref();
    let (text, lines) = match (given, directive) {
        (Some(text), directive) => (text.as_str(), directive.map(|(_, lines)| *lines)),
        (None, Some((text, lines))) => (text.as_str(), Some(*lines)),
        (None, None) => return Ok(Config::default()),
    };
    Config::parse(text).map_err(|message| {
        let message = format!("failed to parse check options: {message}");
        let lines = lines.unwrap_or(file.stages[0].lines);
        file.source.failure(Problem::new("bad-check-option", message), lines)
    })
}

fn violation(file: &Dockerfile, config: &Config, findings: &[Finding]) -> Option<Failure> {
    let first = findings.first().filter(|_| config.error)?;
    let mut names: Vec<&str> = findings.iter().map(|finding| finding.rule.name()).collect();
    names.sort_unstable();
    names.dedup();
    let message = format!("lint violation found for rules: {}", names.join(", "));
    let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let problem = Problem::new("check-failed", message).with_hint(told.join("\n"));
    Some(file.source.failure(problem, first.lines))
}
