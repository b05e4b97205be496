//! Why did it run? Each step that ran beside the same one of the build before.

use api::public::v1::{StageReasonsView, StepReasonView, WhyView};
use common::tree::Manifest;
use common::{BuildId, Digest, ProjectName};
use store::{KeyedStage, KeyedStep};

use super::documents::StageDocument;
use super::plan_build::Packs;
use super::reasons::{Cause, changed_files, compare};
use super::{App, AppError};

/// Files that are named, at most.
const MAX_FILES: usize = 20;

impl App {
    /// Why the steps of a build ran that did.
    pub(crate) async fn explain_build(&self, build: BuildId) -> Result<WhyView, AppError> {
        let project = self.build_project(build).await?;
        let mut stages = Vec::new();
        for stage in self.store.keyed_stages(build).await? {
            if !stage.steps.iter().any(ran) {
                continue;
            }
            let before = self.store.keyed_before(&project, &stage).await?;
            stages.push(self.explain_stage(&project, &stage, before.as_ref()).await?);
        }
        Ok(WhyView { build, stages })
    }

    async fn explain_stage(
        &self,
        project: &ProjectName,
        stage: &KeyedStage,
        before: Option<&KeyedStage>,
    ) -> Result<StageReasonsView, AppError> {
        let now: StageDocument = serde_json::from_value(stage.plan.clone())?;
        let then = before.map(|before| serde_json::from_value(before.plan.clone())).transpose()?;
        let mut steps = Vec::new();
        for (position, step) in stage.steps.iter().enumerate().filter(|(_, step)| ran(step)) {
            let old = before.and_then(|before| before.steps.get(position));
            let causes = compare((&now, stage, step), (then.as_ref(), before, old));
            let mut reasons = Vec::new();
            for cause in causes {
                reasons.push(cause.to_string());
                if let (Cause::Files { source }, Some(before)) = (&cause, before) {
                    let contexts = (stage.context, before.context);
                    reasons.extend(self.files(project, contexts, source).await);
                }
            }
            let (number, display) = (step.number, step.display.clone());
            steps.push(StepReasonView { number, display, reasons });
        }
        Ok(StageReasonsView {
            stage: stage.id,
            label: stage.label.clone(),
            compared_with: before.map(|before| before.build),
            steps,
        })
    }

    /// Which files differ between two contexts; nothing where one is not there any more.
    async fn files(
        &self,
        project: &ProjectName,
        (now, then): (Option<Digest>, Option<Digest>),
        source: &str,
    ) -> Vec<String> {
        let (Some(now), Some(then)) = (now, then) else { return Vec::new() };
        let (now, then) = (self.list(project, &now).await, self.list(project, &then).await);
        let (Some(now), Some(then)) = (now, then) else { return Vec::new() };
        let mut changed = changed_files(&now, &then, source);
        let more = changed.len().saturating_sub(MAX_FILES);
        changed.truncate(MAX_FILES);
        if more > 0 {
            changed.push(format!("and {more} more"));
        }
        changed
    }

    async fn list(&self, project: &ProjectName, digest: &Digest) -> Option<Manifest> {
        self.context(project, digest, Packs::NotNeeded).await.ok()
    }
}

/// Whether a step has run, or runs.
fn ran(step: &KeyedStep) -> bool {
    matches!(step.state.as_str(), "running" | "done" | "failed")
}
