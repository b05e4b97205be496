//! Several plans as one: what is the same in them is planned once.
//!
//! Each platform and each target has its own plan. A stage that is equal in two of them (a
//! `$BUILDPLATFORM` stage that does not ask for the target's platform, for example) is one stage of
//! the build. A plan may start from what an earlier one makes: there an image stands for it.

use std::collections::BTreeMap;

use common::image::ContainerConfig;
use common::plan::{
    Base, CopyFrom, Demand, ImageIndex, Mount, Op, Plan, PlannedStage, SliceSelector, StageIndex,
    Step,
};

use crate::Planned;
use crate::plan::searched;

/// The stages of earlier plans, by the reference of the image that stands for each.
pub type Links = BTreeMap<String, StageIndex>;

/// Puts plans together. Targets stay in the order of the plans.
///
/// # Panics
/// Without any plan.
#[expect(clippy::expect_used, reason = "documented: one plan at least")]
pub fn merge(plans: Vec<Planned>) -> Planned {
    let plans = plans.into_iter().map(|plan| (plan, Links::new()));
    merge_linked(plans.collect()).expect("a plan").0
}

/// The same for plans that start from what earlier ones make, with where the last plan's stages are
/// now; nothing is nothing.
pub fn merge_linked(plans: Vec<(Planned, Links)>) -> Option<(Planned, Vec<StageIndex>)> {
    let mut plans = plans.into_iter();
    let (mut merged, _) = plans.next()?;
    let mut places = merged.plan.stages.iter().map(|stage| stage.index).collect();
    for (other, links) in plans {
        places = add(&mut merged.plan, other.plan, &links);
        merged.remotes.extend(other.remotes);
        for warning in other.warnings {
            if !merged.warnings.contains(&warning) {
                merged.warnings.push(warning);
            }
        }
        merged.findings.extend(other.findings);
        merged.violation = merged.violation.or(other.violation);
        merged.reach.add(other.reach);
    }
    merged.findings.sort();
    merged.findings.dedup();
    merged.plan.stages.iter_mut().for_each(|stage| stage.demands.clear());
    demands(&mut merged.plan.stages);
    Some((merged, places))
}

/// Gives the contexts that a plan reads other names, or something else in their place. The main one
/// has none.
pub fn rename_contexts(plan: &mut Plan, new: &dyn Fn(Option<&str>) -> CopyFrom) {
    for from in plan.stages.iter_mut().flat_map(|stage| &mut stage.steps).flat_map(sources) {
        match from {
            CopyFrom::Context => *from = new(None),
            CopyFrom::NamedContext { name } => *from = new(Some(name)),
            CopyFrom::Scratch | CopyFrom::Image { .. } | CopyFrom::Stage { .. } => {}
        }
    }
}

/// What stands for an image of the other plan.
#[derive(Clone, Copy)]
enum Found {
    Image(ImageIndex),
    Stage(StageIndex),
}

/// Adds a plan, and says where its stages are now.
fn add(plan: &mut Plan, other: Plan, links: &Links) -> Vec<StageIndex> {
    let mut images = Vec::new();
    for image in other.images {
        if let Some(stage) = links.get(&image.reference) {
            images.push(Found::Stage(*stage));
            continue;
        }
        let found = plan.images.iter().position(|known| *known == image);
        let position = found.unwrap_or_else(|| {
            plan.images.push(image);
            plan.images.len() - 1
        });
        images.push(Found::Image(ImageIndex(index(position))));
    }
    let target = other.targets.first().map(|target| target.platform.to_string());
    let mut stages: Vec<StageIndex> = Vec::new();
    for mut stage in other.stages {
        match &mut stage.base {
            Base::Stage(base) => *base = stages[base.0 as usize],
            Base::Image(image) => {
                stage.base = match images[image.0 as usize] {
                    Found::Image(image) => Base::Image(image),
                    Found::Stage(stage) => Base::Stage(stage),
                };
            }
            Base::Scratch => {}
        }
        for (from, patterns) in stage.steps.iter_mut().flat_map(sources_and_patterns) {
            match from {
                CopyFrom::Stage { stage, .. } => *stage = stages[stage.0 as usize],
                CopyFrom::Image { image } => {
                    *from = match images[image.0 as usize] {
                        Found::Image(image) => CopyFrom::Image { image },
                        Found::Stage(stage) => {
                            let selector = SliceSelector::new(patterns);
                            CopyFrom::Stage { stage, selector }
                        }
                    };
                }
                CopyFrom::Context | CopyFrom::Scratch | CopyFrom::NamedContext { .. } => {}
            }
        }
        let alike = plan.stages.iter().find(|known| is_same_but_for_labels(known, &stage));
        if let Some(known) = alike.filter(|known| known.config != stage.config) {
            // What the request's labels tell apart runs once all the same.
            stage.base = Base::Stage(known.index);
            stage.steps.clear();
            stage.history.clear();
        }
        let found = plan.stages.iter().position(|known| is_same(known, &stage));
        let position = found.unwrap_or_else(|| {
            let is_taken = |known: &PlannedStage| known.label == stage.label;
            if let Some(target) = target.as_ref().filter(|_| plan.stages.iter().any(is_taken)) {
                stage.label = format!("{} ({target})", stage.label);
            }
            stage.index = StageIndex(index(plan.stages.len()));
            plan.stages.push(stage);
            plan.stages.len() - 1
        });
        stages.push(StageIndex(index(position)));
    }
    for mut target in other.targets {
        target.stage = stages[target.stage.0 as usize];
        plan.targets.push(target);
    }
    stages
}

fn index(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

/// Whether two stages do the same on the same and make the same image of it.
fn is_same(one: &PlannedStage, other: &PlannedStage) -> bool {
    one.config == other.config && is_same_but_for_labels(one, other)
}

/// Whether two stages do the same on the same; labels change no file.
fn is_same_but_for_labels(one: &PlannedStage, other: &PlannedStage) -> bool {
    let bare = |stage: &PlannedStage| ContainerConfig { labels: None, ..stage.config.clone() };
    one.source_index == other.source_index
        && one.key == other.key
        && one.base == other.base
        && one.platform == other.platform
        && one.steps == other.steps
        && one.author == other.author
        && one.history == other.history
        && bare(one) == bare(other)
}

fn sources(step: &mut Step) -> Vec<&mut CopyFrom> {
    sources_and_patterns(step).into_iter().map(|(from, _)| from).collect()
}

/// What a step reads from, and what it reads there.
fn sources_and_patterns(step: &mut Step) -> Vec<(&mut CopyFrom, Vec<String>)> {
    match &mut step.op {
        Op::Copy(copy) => {
            let patterns = copy.sources.iter().map(|source| searched(source)).collect();
            vec![(&mut copy.from, patterns)]
        }
        Op::Run(run) => run
            .mounts
            .iter_mut()
            .filter_map(|mount| match mount {
                Mount::Bind { from, source, .. } => Some((from, vec![searched(source)])),
                Mount::Cache { from, source, .. } => Some((from.as_mut()?, vec![searched(source)])),
                Mount::Tmpfs { .. } | Mount::Secret { .. } | Mount::Ssh { .. } => None,
            })
            .collect(),
        Op::Workdir(_) => Vec::new(),
    }
}

/// Tells the producers what the stages copy out of them.
pub(crate) fn demands(stages: &mut [PlannedStage]) {
    for consumer in 0..stages.len() {
        let wanted: Vec<_> = stages[consumer]
            .steps
            .iter()
            .flat_map(Step::input_slices)
            .map(|(stage, selector)| (stage, selector.clone()))
            .collect();
        let consumer = stages[consumer].index;
        for (stage, selector) in wanted {
            let demands = &mut stages[stage.0 as usize].demands;
            match demands.iter_mut().find(|demand| demand.selector == selector) {
                Some(demand) if demand.consumers.contains(&consumer) => {}
                Some(demand) => demand.consumers.push(consumer),
                None => demands.push(Demand { selector, consumers: vec![consumer] }),
            }
        }
    }
}
