//! What is unwise in a Dockerfile, and what it offers.

use api::Problem;
use api::public::v1::{
    BuildRequest, BuildSource, CheckView, FindingView, OutlineArgView, OutlineMountView,
    OutlineView, TargetView,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use dockerfile::{Finding, Outline, OutlineMount, Target};

use super::layouts::Layouts;
use super::plan_build::{Packs, PlanError, join};
use super::submit_build::check;
use super::targets::Earlier;
use super::{App, AppError};

impl App {
    /// Runs the build checks. No file of the context has to be there, and nothing is stored.
    pub(crate) async fn check_file(&self, request: &BuildRequest) -> Result<CheckView, AppError> {
        check(request)?;
        if !request.targets.is_empty() {
            let detail = "the checks are for one target at a time";
            return Err(Problem::new(422, "bad-request", detail).into());
        }
        let BuildSource::Context(source) = &request.source;
        let (name, text) = (&source.dockerfile.name, &source.dockerfile.content_base64);
        let bytes = BASE64_STANDARD.decode(text).unwrap_or_default();
        let file = match dockerfile::parse(name, &bytes) {
            Ok(file) => file,
            Err(failures) => {
                let findings = dockerfile::text_findings(name, &bytes);
                return failed(join(failures), findings, Vec::new());
            }
        };
        let targets = file.targets();
        let checked = async {
            let mut checked = Vec::new();
            let layouts = Layouts::of(request)?;
            for options in self.options(request, Packs::NotNeeded).await? {
                let known = (&layouts, &Earlier::default());
                let (images, _) =
                    self.images(&file, &options, request, known, Packs::NotNeeded).await?;
                checked.push(file.check(&options, &images).map_err(join)?);
            }
            Ok(dockerfile::merge(checked))
        };
        match checked.await {
            Ok(planned) => Ok(CheckView {
                failure: planned.violation,
                findings: planned.findings.into_iter().map(finding).collect(),
                targets: targets.into_iter().map(target).collect(),
                outline: Some(outline(planned.outline)),
            }),
            Err(error) => failed(error, dockerfile::text_findings(name, &bytes), targets),
        }
    }
}

fn failed(
    error: PlanError,
    findings: Vec<Finding>,
    targets: Vec<Target>,
) -> Result<CheckView, AppError> {
    match error {
        PlanError::Failed(failure) => Ok(CheckView {
            failure: Some(*failure),
            findings: findings.into_iter().map(finding).collect(),
            targets: targets.into_iter().map(target).collect(),
            outline: None,
        }),
        PlanError::Internal(error) => Err(error),
    }
}

fn finding(finding: Finding) -> FindingView {
    FindingView {
        rule: finding.rule.name().to_owned(),
        description: finding.rule.description().to_owned(),
        url: finding.rule.url(),
        message: finding.message,
        lines: finding.lines,
    }
}

fn target(target: Target) -> TargetView {
    let Target { name, description, base, platform, is_default, lines } = target;
    TargetView { name, description, base, platform, is_default, lines }
}

fn outline(outline: Outline) -> OutlineView {
    let mounts = |list: Vec<OutlineMount>| {
        let view =
            |OutlineMount { name, required, lines }| OutlineMountView { name, required, lines };
        list.into_iter().map(view).collect()
    };
    let arg = |arg: dockerfile::OutlineArg| OutlineArgView {
        name: arg.name,
        value: arg.value,
        description: arg.description,
        lines: arg.lines,
    };
    OutlineView {
        name: outline.name,
        description: outline.description,
        args: outline.args.into_iter().map(arg).collect(),
        secrets: mounts(outline.secrets),
        ssh: mounts(outline.ssh),
        caches: mounts(outline.caches),
    }
}
