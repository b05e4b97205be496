//! `--no-cache-filter`: what the cache holds of some stages does not count.

use std::collections::BTreeMap;

use common::Digest;
use common::image::Layer;
use common::plan::{Base, Plan, PlannedStage};
use store::{CachedSlice, SliceKey};

/// Takes out of what was found all that the stages make that `is_fresh` names, and whatever other
/// stages make of that.
pub(super) fn without_stages(
    plan: &Plan,
    is_fresh: &dyn Fn(&PlannedStage) -> bool,
    hits: &mut BTreeMap<Digest, Layer>,
    slices: &mut BTreeMap<SliceKey, CachedSlice>,
) {
    for (stage, first) in plan.stages.iter().zip(stale_steps(plan, is_fresh)) {
        if let Some(first) = first {
            for step in stage.steps.get(first..).unwrap_or_default() {
                hits.remove(&step.key);
            }
            slices.retain(|key, _| key.stage_key != stage.key);
        }
    }
}

/// For each stage the position of its first step for which the cache does not count: its own wish, or
/// because it reads such a stage.
pub(super) fn stale_steps(
    plan: &Plan,
    is_fresh: &dyn Fn(&PlannedStage) -> bool,
) -> Vec<Option<usize>> {
    // Producers come first.
    let mut firsts: Vec<Option<usize>> = Vec::new();
    for stage in &plan.stages {
        let is_stale = |index: common::plan::StageIndex| {
            firsts.get(index.0 as usize).copied().flatten().is_some()
        };
        let first = match stage.base {
            _ if is_fresh(stage) => Some(0),
            Base::Stage(base) if is_stale(base) => Some(0),
            _ => stage.steps.iter().position(|step| {
                step.input_slices().into_iter().any(|(producer, _)| is_stale(producer))
            }),
        };
        firsts.push(first);
    }
    firsts
}
