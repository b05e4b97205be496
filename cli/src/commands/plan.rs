//! `slipway plan`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use api::public::v1::{PlanRequest, PlanView, PlannedFate, PlannedStageView, PlannedStepView};
use client::public::Client;
use common::plan::DEFAULT_AGENT;

use super::prepare::Prepared;
use super::repositories::answers;
use crate::agent;
use crate::args::Plan;
use crate::context::Sent;
use crate::exit::CliError;
use crate::output::print;

/// Most repositories that are asked about.
const MAX_ANSWERS: usize = 200;

/// Says what a build would do.
pub(crate) async fn run(client: &Client, arguments: &Plan) -> Result<ExitCode, CliError> {
    let mut prepared = Prepared::load(client, &arguments.build, BTreeMap::new()).await?;
    let ssh = &arguments.build.ssh;
    let may_ask = agent::names(ssh)?.contains(DEFAULT_AGENT);
    // An agent that nothing is asked of need not be there.
    let mut agents = BTreeMap::new();
    let mut repositories = Vec::new();
    let plan = loop {
        let (build, _) = prepared.request(Vec::new(), Some(Sent::Manifest), None).await?;
        let request = PlanRequest { build, repositories: repositories.clone() };
        let plan = client.plan(&request).await?;
        let count = plan.questions.len();
        if may_ask && count > 0 && agents.is_empty() {
            agents = agent::sources(ssh)?;
        }
        let agent = agents.get(DEFAULT_AGENT).filter(|_| count > 0);
        if let Some(agent) = agent.filter(|_| repositories.len() + count <= MAX_ANSWERS) {
            repositories.extend(answers(plan.questions, agent).await?);
            continue;
        }
        if !prepared.learns_from(plan.failure.as_ref()) {
            break plan;
        }
    };
    if arguments.json {
        let text = serde_json::to_string_pretty(&plan);
        print(&text.map_err(|error| CliError::Farm(error.to_string()))?);
    }
    if let Some(failure) = plan.failure {
        return Err(CliError::Failed(Box::new(failure)));
    }
    if !arguments.json {
        print(&describe(&plan, arguments.keys));
    }
    Ok(ExitCode::SUCCESS)
}

/// The plan for people.
fn describe(plan: &PlanView, keys: bool) -> String {
    let mut text = String::new();
    for warning in &plan.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    for stage in &plan.stages {
        stage_text(&mut text, stage, keys);
    }
    let steps = || plan.stages.iter().flat_map(|stage| &stage.steps);
    let count = |fate| steps().filter(|step| step.fate == fate).count();
    let runs = plan.stages.iter().filter(|stage| stage.fate == PlannedFate::Run).count();
    text.push_str(&match runs {
        0 => "nothing would run".to_owned(),
        _ => format!(
            "{runs} of {} stages would run: {} steps, with {} more from the cache",
            plan.stages.len(),
            count(PlannedFate::Run),
            count(PlannedFate::Cached)
        ),
    });
    text
}

fn stage_text(text: &mut String, stage: &PlannedStageView, keys: bool) {
    let reads = match stage.reads.as_slice() {
        [] => String::new(),
        labels => format!(", reads {}", labels.join(", ")),
    };
    let (label, word) = (&stage.label, word(stage.fate));
    text.push_str(&format!("{word:7} {label}: from {}{reads}\n", stage.base));
    let all = stage.steps.iter().map(|step| step.number).max().unwrap_or(1);
    for step in &stage.steps {
        step_text(text, step, all, keys);
    }
}

fn step_text(text: &mut String, step: &PlannedStepView, all: u32, keys: bool) {
    let place = format!("{}/{all}", step.number);
    let key = step.key.short();
    text.push_str(&format!("{:7}   {place:>5} {key}  {}\n", word(step.fate), step.display));
    if keys {
        for part in &step.key_parts {
            let value = part.value.replace('\n', " ");
            text.push_str(&format!("{:17} {}: {value}\n", "", part.name));
        }
    }
}

fn word(fate: PlannedFate) -> &'static str {
    match fate {
        PlannedFate::Cached => "cached",
        PlannedFate::Run => "run",
        PlannedFate::Skipped => "skipped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::Digest;
    use common::cache_key::KeyPart;
    use common::outcome::LineRange;

    fn step(number: u32, fate: PlannedFate, display: &str) -> PlannedStepView {
        let lines = LineRange { start: number, end: number };
        let key_parts = vec![KeyPart { name: "command".into(), value: "echo".into() }];
        let (key, display) = (Digest::of(b"x"), display.to_owned());
        PlannedStepView { number, display, lines, fate, key, key_parts }
    }

    #[test]
    fn a_plan_says_what_would_run_and_why_it_is_looked_up_so() {
        let stage = PlannedStageView {
            label: "builder".into(),
            lines: LineRange { start: 1, end: 1 },
            platform: "linux/amd64".into(),
            base: "golang@sha256:00".into(),
            reads: vec!["tools".into()],
            fate: PlannedFate::Run,
            steps: vec![
                step(2, PlannedFate::Cached, "WORKDIR /src"),
                step(3, PlannedFate::Run, "RUN echo"),
            ],
        };
        let plan = PlanView {
            failure: None,
            questions: Vec::new(),
            warnings: vec!["w".into()],
            stages: vec![stage],
        };
        let key = Digest::of(b"x").short();
        let expected = format!(
            "warning: w\nrun     builder: from golang@sha256:00, reads tools\n\
             cached      2/3 {key}  WORKDIR /src\n\
             run         3/3 {key}  RUN echo\n\
             1 of 1 stages would run: 1 steps, with 1 more from the cache"
        );
        assert_eq!(describe(&plan, false), expected);
        assert!(describe(&plan, true).contains("command: echo"));
    }
}
