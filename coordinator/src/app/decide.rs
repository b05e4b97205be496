//! What has to run: a pure function of the plan and of what the cache holds.

use std::collections::{BTreeMap, BTreeSet};

use common::Digest;
use common::image::Layer;
use common::plan::{Base, Plan, PlannedStage, SliceSelector};
use store::{CachedSlice, SliceKey};

/// What becomes of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nobody who runs needs it.
    Skipped,
    /// Every step was found: these are its layers.
    Cached { layers: Vec<Layer> },
    /// It runs from `first_step` on. `base_layers` are below that; `None` while its base runs too.
    Run { first_step: u32, base_layers: Option<Vec<Layer>>, make_slices: Vec<SliceSelector> },
}

/// A decision and the slices that were found for the stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) decision: Decision,
    pub(crate) slices: Vec<CachedSlice>,
}

/// Decides for every stage of the plan, walking back from the target.
pub(crate) fn decide(
    plan: &Plan,
    hits: &BTreeMap<Digest, Layer>,
    slices: &BTreeMap<SliceKey, CachedSlice>,
) -> Vec<Decided> {
    let chains = chains(plan, hits);
    let mut needs_layers = vec![false; plan.stages.len()];
    let mut needs_slices: Vec<BTreeSet<SliceSelector>> = vec![BTreeSet::new(); plan.stages.len()];
    for target in &plan.targets {
        needs_layers[target.stage.0 as usize] = true;
    }
    let mut decided = Vec::new();
    for (position, stage) in plan.stages.iter().enumerate().rev() {
        let wanted = std::mem::take(&mut needs_slices[position]);
        if !needs_layers[position] && wanted.is_empty() {
            decided.push(Decided { decision: Decision::Skipped, slices: Vec::new() });
            continue;
        }
        let key = |selector: &SliceSelector| SliceKey {
            stage_key: stage.key,
            selector: selector.digest(),
        };
        let (found, missing): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|selector| slices.contains_key(&key(selector)));
        let found =
            found.iter().filter_map(|selector| slices.get(&key(selector)).cloned()).collect();
        let decision = match &chains[position] {
            Some(layers) if missing.is_empty() => Decision::Cached { layers: layers.clone() },
            Some(layers) => Decision::Run {
                first_step: after_last(stage),
                base_layers: Some(layers.clone()),
                make_slices: missing,
            },
            None => {
                let (first, base_layers) = start(plan, stage, &chains, hits);
                if base_layers.is_none()
                    && let Base::Stage(base) = stage.base
                {
                    needs_layers[base.0 as usize] = true;
                }
                for step in &stage.steps[first..] {
                    for (producer, selector) in step.input_slices() {
                        let producer = producer.0 as usize;
                        needs_slices[producer].insert(selector.clone());
                    }
                }
                let first_step = stage.steps.get(first).map_or(after_last(stage), |s| s.number);
                Decision::Run { first_step, base_layers, make_slices: missing }
            }
        };
        decided.push(Decided { decision, slices: found });
    }
    decided.reverse();
    decided
}

/// The layers of each stage all of whose steps were found, down to the bottom.
fn chains(plan: &Plan, hits: &BTreeMap<Digest, Layer>) -> Vec<Option<Vec<Layer>>> {
    let mut chains: Vec<Option<Vec<Layer>>> = Vec::new();
    for stage in &plan.stages {
        let chain = base_chain(plan, stage, &chains).and_then(|mut layers| {
            for step in &stage.steps {
                layers.push(hits.get(&step.key)?.clone());
            }
            Some(layers)
        });
        chains.push(chain);
    }
    chains
}

fn base_chain(
    plan: &Plan,
    stage: &PlannedStage,
    chains: &[Option<Vec<Layer>>],
) -> Option<Vec<Layer>> {
    match stage.base {
        Base::Scratch => Some(Vec::new()),
        Base::Image(image) => Some(plan.image(image).layers.clone()),
        Base::Stage(base) => chains.get(base.0 as usize)?.clone(),
    }
}

/// Position of the first step that was not found, and the layers below it.
fn start(
    plan: &Plan,
    stage: &PlannedStage,
    chains: &[Option<Vec<Layer>>],
    hits: &BTreeMap<Digest, Layer>,
) -> (usize, Option<Vec<Layer>>) {
    let Some(mut layers) = base_chain(plan, stage, chains) else { return (0, None) };
    let found: Vec<&Layer> = stage.steps.iter().map_while(|step| hits.get(&step.key)).collect();
    let first = found.len();
    layers.extend(found.into_iter().cloned());
    (first, Some(layers))
}

fn after_last(stage: &PlannedStage) -> u32 {
    stage.steps.last().map_or(2, |step| step.number + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::Platform;
    use common::image::{ContainerConfig, LayerOrigin};
    use common::outcome::LineRange;
    use common::plan::{CopyFrom, CopyOp, Op, PlanTarget, StageIndex, Step, WorkdirOp};

    fn key(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn layer(name: &str) -> Layer {
        Layer {
            diff_id: key(name),
            blob: key(name),
            size_bytes: 1,
            media_type: String::new(),
            origin: LayerOrigin::Farm,
        }
    }

    fn step(number: u32, name: &str, from: Option<u32>) -> Step {
        let op = match from {
            Some(stage) => {
                let selector = SliceSelector::new(vec!["/x".into()]);
                let from = CopyFrom::Stage { stage: StageIndex(stage), selector };
                Op::Copy(CopyOp::new(from, vec!["/x".into()], "/"))
            }
            None => Op::Workdir(WorkdirOp { path: "/w".into(), owner: String::new() }),
        };
        let lines = LineRange { start: 1, end: 1 };
        Step { number, lines, display: name.into(), op, key: key(name), key_parts: Vec::new() }
    }

    fn stage(index: u32, base: Base, steps: Vec<Step>) -> PlannedStage {
        PlannedStage {
            index: StageIndex(index),
            source_index: index,
            name: None,
            label: index.to_string(),
            lines: LineRange { start: 1, end: 1 },
            base,
            platform: Platform::host(),
            key: steps.last().map_or(key("base"), |step| step.key),
            steps,
            config: ContainerConfig::default(),
            author: None,
            history: Vec::new(),
            demands: Vec::new(),
        }
    }

    /// Two stages; the second copies from the first in its second step.
    fn two() -> Plan {
        let stages = vec![
            stage(0, Base::Scratch, vec![step(2, "a", None), step(3, "b", None)]),
            stage(1, Base::Scratch, vec![step(2, "c", None), step(3, "d", Some(0))]),
        ];
        let targets = vec![PlanTarget { stage: StageIndex(1), platform: Platform::host() }];
        Plan { stages, targets, images: Vec::new() }
    }

    fn decisions(plan: &Plan, hits: &[&str], slices: &[&str]) -> Vec<Decision> {
        let hits = hits.iter().map(|name| (key(name), layer(name))).collect();
        let selector = SliceSelector::new(vec!["/x".into()]);
        let slices = slices
            .iter()
            .map(|name| {
                let slice = CachedSlice {
                    selector: selector.clone(),
                    manifest: key("m"),
                    inline_manifest: None,
                    files: 1,
                    content_bytes: 1,
                    stored_bytes: 1,
                    content: None,
                };
                (SliceKey { stage_key: key(name), selector: selector.digest() }, slice)
            })
            .collect();
        decide(plan, &hits, &slices).into_iter().map(|decided| decided.decision).collect()
    }

    fn run(first_step: u32, base: Option<&[&str]>, slice: bool) -> Decision {
        let base_layers = base.map(|names| names.iter().map(|name| layer(name)).collect());
        let selector = SliceSelector::new(vec!["/x".into()]);
        let make_slices = if slice { vec![selector] } else { Vec::new() };
        Decision::Run { first_step, base_layers, make_slices }
    }

    #[test]
    fn with_an_empty_cache_everything_runs_and_slices_are_made() {
        let decided = decisions(&two(), &[], &[]);
        assert_eq!(decided, [run(2, Some(&[]), true), run(2, Some(&[]), false)]);
    }

    #[test]
    fn a_cached_target_skips_what_it_read() {
        let decided = decisions(&two(), &["c", "d"], &[]);
        let layers = vec![layer("c"), layer("d")];
        assert_eq!(decided, [Decision::Skipped, Decision::Cached { layers }]);
    }

    #[test]
    fn a_partial_hit_starts_in_the_middle() {
        let decided = decisions(&two(), &["a", "c"], &[]);
        assert_eq!(decided, [run(3, Some(&["a"]), true), run(3, Some(&["c"]), false)]);
    }

    #[test]
    fn a_cached_producer_without_the_slice_only_makes_the_slice() {
        let decided = decisions(&two(), &["a", "b", "c"], &[]);
        assert_eq!(decided, [run(4, Some(&["a", "b"]), true), run(3, Some(&["c"]), false)]);
        let decided = decisions(&two(), &["a", "b", "c"], &["b"]);
        let layers = vec![layer("a"), layer("b")];
        assert_eq!(decided, [Decision::Cached { layers }, run(3, Some(&["c"]), false)]);
    }

    #[test]
    fn a_stage_waits_for_a_base_that_runs() {
        let stages = vec![
            stage(0, Base::Scratch, vec![step(2, "a", None)]),
            stage(1, Base::Stage(StageIndex(0)), vec![step(2, "b", None)]),
        ];
        let plan = Plan { stages, ..two() };
        assert_eq!(decisions(&plan, &[], &[]), [run(2, Some(&[]), false), run(2, None, false)]);
        // The upper step alone is of no use when the layers below it are gone.
        assert_eq!(decisions(&plan, &["b"], &[])[1], run(2, None, false));
        let decided = decisions(&plan, &["a"], &[]);
        assert_eq!(decided, [Decision::Skipped, run(2, Some(&["a"]), false)]);
    }
}
