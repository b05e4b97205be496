//! What a build would do, without doing it.

use std::sync::Mutex;

use api::Problem;
use api::public::v1::{
    PlanRequest, PlanView, PlannedFate, PlannedStageView, PlannedStepView, RepositoryAnswer,
};
use common::plan::{Base, Plan, PlannedStage, Step};
use fetch::is_commit;

use super::decide::Decision;
use super::plan_build::{Packs, PlanError, Prepared};
use super::remotes::{Asker, Servers};
use super::submit_build::check;
use super::{App, AppError};

/// Most answers about repositories.
const MAX_ANSWERS: usize = 200;

impl App {
    /// Plans and looks everything up; nothing is stored. A Dockerfile that cannot be planned is an
    /// answer, not an error.
    pub(crate) async fn show_plan(&self, request: &PlanRequest) -> Result<PlanView, AppError> {
        let PlanRequest { build, repositories } = request;
        check(build)?;
        check_answers(repositories)?;
        let fetcher = self.fetcher_with(build.trust, build.secrets.iter())?;
        let asker = Asker::Client { answers: repositories.clone(), questions: Mutex::default() };
        let servers = Servers { fetcher, asker };
        match self.prepare(build, &servers, Packs::NotNeeded).await {
            Ok(prepared) => Ok(view(prepared)),
            Err(PlanError::Failed(failure)) => {
                let questions = servers.questions();
                Ok(PlanView { failure: Some(*failure), questions, ..PlanView::default() })
            }
            Err(PlanError::Internal(error)) => Err(error),
        }
    }
}

/// A plan is for whoever asks alone: what he says of his repositories is taken for true.
fn check_answers(answers: &[RepositoryAnswer]) -> Result<(), Problem> {
    let bad = |detail: &str| Err(Problem::new(422, "bad-request", detail.to_owned()));
    if answers.len() > MAX_ANSWERS {
        return bad("a plan has at most 200 answers about repositories");
    }
    for RepositoryAnswer { question, answer } in answers {
        let fits = if question.time { answer.parse::<i64>().is_ok() } else { is_commit(answer) };
        if !fits {
            return bad("an answer is neither a commit nor a time");
        }
    }
    Ok(())
}

fn view(prepared: Prepared) -> PlanView {
    let Prepared { plan, warnings, decided, .. } = prepared;
    let decisions = decided.iter().map(|decided| &decided.decision);
    let stages = plan.stages.iter().zip(decisions).map(|(stage, decision)| PlannedStageView {
        label: stage.label.clone(),
        lines: stage.lines,
        platform: stage.platform.to_string(),
        base: base(&plan, stage),
        reads: reads(&plan, stage),
        fate: match decision {
            Decision::Cached { .. } => PlannedFate::Cached,
            Decision::Skipped => PlannedFate::Skipped,
            Decision::Run { .. } => PlannedFate::Run,
        },
        steps: steps(stage, decision),
    });
    let stages = stages.collect();
    PlanView { failure: None, questions: Vec::new(), warnings, stages }
}

fn base(plan: &Plan, stage: &PlannedStage) -> String {
    match stage.base {
        Base::Scratch => "scratch".to_owned(),
        Base::Stage(base) => plan.stage(base).label.clone(),
        Base::Image(image) => {
            let image = plan.image(image);
            // A reference may name the digest itself.
            let name = image.reference.split('@').next().unwrap_or_default();
            format!("{name}@{}", image.digest)
        }
    }
}

/// The stages that it copies or mounts from: its base is told apart.
fn reads(plan: &Plan, stage: &PlannedStage) -> Vec<String> {
    let copied = stage.steps.iter().flat_map(Step::input_slices);
    let mut labels: Vec<String> = Vec::new();
    for (producer, _) in copied {
        let label = &plan.stage(producer).label;
        if !labels.contains(label) {
            labels.push(label.clone());
        }
    }
    labels
}

fn steps(stage: &PlannedStage, decision: &Decision) -> Vec<PlannedStepView> {
    let fate = |number: u32| match decision {
        Decision::Cached { .. } => PlannedFate::Cached,
        Decision::Skipped => PlannedFate::Skipped,
        Decision::Run { first_step, .. } if number < *first_step => PlannedFate::Cached,
        Decision::Run { .. } => PlannedFate::Run,
    };
    let view = stage.steps.iter().map(|step| PlannedStepView {
        number: step.number,
        display: step.display.clone(),
        lines: step.lines,
        fate: fate(step.number),
        key: step.key,
        key_parts: step.key_parts.clone(),
    });
    view.collect()
}
