//! The whole plan.

use common::Failure;
use common::plan::{Plan, StageIndex};
use common::tree::Manifest;

use super::{graph, stage};
use crate::diagnostic::Problem;
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

/// Plans. With `check_context` sources that are missing in the context are failures.
pub(crate) fn plan(
    file: &Dockerfile,
    options: &Options,
    known: &ImageFacts,
    context: Option<&Manifest>,
    check_context: bool,
) -> Result<Outcome, Vec<Failure>> {
    let graph = graph::build(file, options, known)?;
    if !graph.missing.is_empty() {
        return Ok(Outcome::Missing(graph.missing));
    }
    if !check_context {
        return Ok(Outcome::Missing(Vec::new()));
    }
    let mut planner = stage::Planner::new(file, options, known, context, &graph);
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
    let (stages, images, consumed) = planner.finish();
    let mut warnings = file.warnings.clone();
    let unused: Vec<_> =
        options.build_args.keys().filter(|name| !consumed.contains(*name)).cloned().collect();
    if !unused.is_empty() {
        warnings.push(format!("build-args that no ARG declares: {}", unused.join(", ")));
    }
    let target = StageIndex(u32::try_from(stages.len() - 1).unwrap_or(0));
    let plan = Plan { stages, target, images, platform: options.platform.clone() };
    Ok(Outcome::Planned(Box::new(Planned { plan, warnings })))
}
