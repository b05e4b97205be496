//! What the scheduler is told of a build's stages.

use api::public::v1::BuildRequest;
use common::Trust;
use common::stage::{StageKind, StageState};
use store::{NewPlan, NewStage};

use super::{App, AppError};
use crate::scheduler::{DEFAULT_MILLIS, critical_paths};

/// What an export is taken to run when nothing is known of it.
const EXPORT_MILLIS: u64 = 1_000;

impl App {
    /// Fills in priority, predictions and what stages start from. `dockerfiles` names the file of each
    /// stage.
    pub(super) async fn place(
        &self,
        request: &BuildRequest,
        dockerfiles: &[&str],
        plan: &mut NewPlan,
    ) -> Result<(), AppError> {
        let lineages: Vec<String> = plan
            .stages
            .iter()
            .zip(dockerfiles)
            .map(|(stage, dockerfile)| lineage(stage, dockerfile))
            .collect();
        let known = self.store.known_durations(&request.project, &lineages).await?;
        let millis = |(stage, lineage): (&NewStage, &String)| match stage.state {
            StageState::Cached | StageState::Skipped => 0,
            _ if stage.kind == StageKind::Export => {
                known.get(lineage).copied().unwrap_or(EXPORT_MILLIS)
            }
            _ => known.get(lineage).copied().unwrap_or(DEFAULT_MILLIS),
        };
        let millis: Vec<u64> = plan.stages.iter().zip(&lineages).map(millis).collect();
        let position = |id| plan.stages.iter().position(|stage| stage.id == id);
        let mut producers = vec![Vec::new(); plan.stages.len()];
        for edge in &plan.edges {
            if let (Some(consumer), Some(producer)) =
                (position(edge.consumer), position(edge.producer))
            {
                producers[consumer].push(producer);
            }
        }
        let paths = critical_paths(&millis, &producers);
        for ((stage, lineage), path) in plan.stages.iter_mut().zip(lineages).zip(paths) {
            let base = stage.base_layers.as_deref().unwrap_or_default();
            stage.placing.base_chain = store::chain_of(base);
            stage.placing.base_bytes = base.iter().map(|layer| layer.size_bytes).sum();
            stage.placing.priority = request.priority;
            stage.placing.timeout_secs = request.stage_timeout_seconds;
            stage.placing.critical_millis = path;
            if stage.kind == StageKind::Stage {
                stage.placing.labels.clone_from(&request.requires.labels);
                stage.placing.cpu_millis = request.requires.cpu_millis;
                stage.placing.memory_bytes = request.requires.memory_bytes;
            }
            if request.trust.is_untrusted() {
                stage.placing.labels.push(Trust::LABEL.to_owned());
            }
            stage.placing.lineage = Some(lineage);
        }
        Ok(())
    }
}

/// Runs of a stage are compared by the file's name, the stage's and the platform. Where a checkout
/// lies is of no interest: of absolute names the end counts.
fn lineage(stage: &NewStage, dockerfile: &str) -> String {
    let mut name = dockerfile;
    if name.starts_with('/') {
        let before_last = name.rmatch_indices('/').nth(1).map_or(0, |(position, _)| position);
        name = &name[before_last..];
    }
    format!("{name} {} {}", stage.label, stage.platform)
}
