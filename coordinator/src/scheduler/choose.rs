//! The choice.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use common::StageId;

use super::facts::{Asking, Left, Ready, Shares, transfer_millis};

/// Longest time that a stage waits for the worker that has its base.
const LONGEST_HOME_WAIT_MILLIS: u64 = 2_000;
/// How long a stage that failed somewhere waits for another worker.
const OTHER_WORKER_WAIT_MILLIS: u64 = 5_000;
/// After each such time a waiting stage counts for more.
const AGE_STEP_MILLIS: u64 = 300_000;
/// Levels of priority that a step of waiting is worth.
const LEVELS_A_STEP: i64 = 25;
/// More steps make no difference: by then it is before everything else.
const MAX_STEPS: u64 = 30;

/// What the worker should get now, best first, and why not the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Stages to claim.
    pub(crate) take: Vec<StageId>,
    /// Stages that it does not get.
    pub(crate) left: Vec<(StageId, Left)>,
}

/// Chooses for one worker.
///
/// 1. *May it?* Platform, labels, what is left of declared processors and memory, quarantine; a stage
///    that failed here waits a while for another worker, and one whose base another free worker has
///    waits for that one, no longer than the transfer would take.
/// 2. *Whose turn?* The project with the smallest part of its weight in use; each step of waiting of
///    its oldest stage halves that.
/// 3. *Which?* Priority, each step of waiting lifting it; then what is here already, when the longest
///    path is about as long; then the longest path to the end of a build; then age.
///
/// While others are idle too, one stage at a time, so that the stages of a build spread.
pub(crate) fn choose<'a>(
    ready: impl IntoIterator<Item = &'a Ready>,
    asking: &Asking,
    shares: &Shares,
) -> Choice {
    let mut choice = Choice::default();
    let mut projects: BTreeMap<&str, Vec<&Ready>> = BTreeMap::new();
    for stage in ready {
        match why_not(stage, asking) {
            Some(left) => choice.left.push((stage.id, left)),
            None => projects.entry(&stage.project).or_default().push(stage),
        }
    }
    let mut running = shares.running.clone();
    let limit = if asking.other_idle > 0 { asking.free_slots.min(1) } else { asking.free_slots };
    let (mut cpu_millis, mut memory_bytes) = (asking.used_cpu_millis, asking.used_memory_bytes);
    while choice.take.len() < limit as usize {
        let score = |project: &str, stages: &[&Ready]| {
            let used = running.get(project).copied().unwrap_or(0);
            let oldest = stages.iter().map(|stage| stage.waiting_millis).max().unwrap_or(0);
            share(used, shares.weight(project), steps(oldest))
        };
        let next = projects
            .iter()
            .filter(|(_, stages)| !stages.is_empty())
            .min_by(|one, other| score(one.0, one.1).total_cmp(&score(other.0, other.1)))
            .map(|(project, _)| *project);
        let Some(project) = next else { break };
        let Some(stage) = projects.get_mut(project).and_then(most_urgent) else { break };
        let fits = fits(stage, asking, cpu_millis, memory_bytes);
        if let Some(left) = fits {
            choice.left.push((stage.id, left));
            continue;
        }
        cpu_millis = cpu_millis.saturating_add(stage.needs.cpu_millis);
        memory_bytes = memory_bytes.saturating_add(stage.needs.memory_bytes);
        *running.entry(project.to_owned()).or_default() += 1;
        choice.take.push(stage.id);
    }
    let rest = projects.into_values().flatten().map(|stage| (stage.id, Left::Order));
    choice.left.extend(rest);
    choice
}

/// Takes the most urgent out. A worker takes few of many, so they are not sorted.
fn most_urgent<'a>(stages: &mut Vec<&'a Ready>) -> Option<&'a Ready> {
    let urgencies = stages.iter().map(|stage| urgency(stage)).enumerate();
    let (place, _) = urgencies.max_by(|one, other| one.1.cmp(&other.1))?;
    Some(stages.swap_remove(place))
}

/// The part of its weight that a project uses, with one stage more; smaller goes first.
fn share(running: u32, weight: u32, steps: u64) -> f64 {
    let halved = 0.5_f64.powi(i32::try_from(steps).unwrap_or(i32::MAX));
    (f64::from(running) + 1.0) / f64::from(weight) * halved
}

fn steps(waiting_millis: u64) -> u64 {
    (waiting_millis / AGE_STEP_MILLIS).min(MAX_STEPS)
}

type Urgency = (i64, u64, u64, u64, Reverse<StageId>);

/// Larger goes first.
///
/// What is here saves its transfer, so it is worth that much of a longer path. Paths are compared by
/// the second: history is not better than that.
fn urgency(stage: &Ready) -> Urgency {
    let lifted = LEVELS_A_STEP * i64::try_from(steps(stage.waiting_millis)).unwrap_or(0);
    let saved = transfer_millis(stage.here_bytes);
    let path = stage.critical_millis.saturating_add(saved) / 1_000;
    let level = i64::from(stage.priority) + lifted;
    (level, path, stage.here_bytes, stage.waiting_millis, Reverse(stage.id))
}

fn why_not(stage: &Ready, asking: &Asking) -> Option<Left> {
    if asking.is_quarantined {
        return Some(Left::Quarantined);
    }
    if let Some(left) = asking.offer.lacks(&stage.needs) {
        return Some(left);
    }
    if let Some(left) = fits(stage, asking, asking.used_cpu_millis, asking.used_memory_bytes) {
        return Some(left);
    }
    let is_passed_on = stage.waiting_millis < OTHER_WORKER_WAIT_MILLIS;
    if stage.failed_here && asking.other_idle > 0 && is_passed_on {
        return Some(Left::FailedHere);
    }
    home_wait(stage).map(Left::Home)
}

/// What is left of what the worker declares, beside what its stages declare.
fn fits(stage: &Ready, asking: &Asking, cpu_millis: u32, memory_bytes: u64) -> Option<Left> {
    let offer = &asking.offer;
    if offer.cpu_millis > 0 && cpu_millis.saturating_add(stage.needs.cpu_millis) > offer.cpu_millis
    {
        return Some(Left::Cpu);
    }
    let memory = memory_bytes.saturating_add(stage.needs.memory_bytes);
    (offer.memory_bytes > 0 && memory > offer.memory_bytes).then_some(Left::Memory)
}

/// How much longer the stage waits for a worker that has more of its base than this one: as long as
/// the transfer would take, at most.
fn home_wait(stage: &Ready) -> Option<Duration> {
    let saved = stage.elsewhere_bytes.saturating_sub(stage.here_bytes);
    let bound = transfer_millis(saved).min(LONGEST_HOME_WAIT_MILLIS);
    let rest = bound.checked_sub(stage.waiting_millis)?;
    (rest > 0).then(|| Duration::from_millis(rest))
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
