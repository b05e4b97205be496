//! A plan as rows for the database.

use std::collections::BTreeSet;
use std::ops::Range;

use api::worker::v1::ExportTarget;
use common::image::{ImageDocument, ResolvedImage, RootFs};
use common::plan::{Base, CopyFrom, Op, Plan, PlanTarget, PlannedStage, StageIndex, Step};
use common::stage::{StageKind, StageState};
use common::{Digest, Platform, StageId};
use store::{NewEdge, NewPlan, NewStage, NewStep, Placing};
use uuid::Uuid;

use super::AppError;
use super::decide::{Decided, Decision};
use super::documents::{ExportDocument, PlannedImage, StageDocument};
use super::options::Settings;
use super::outputs::Outputs;
use super::refresh::stale_steps;

/// What is made of some of a plan's targets.
pub(super) struct Export {
    /// Its name, where there are several.
    pub(super) name: Option<String>,
    /// Which targets.
    pub(super) targets: Range<usize>,
    pub(super) outputs: Outputs,
    /// Whether the build waits for digests alone.
    pub(super) awaits_digests: bool,
}

/// The rows of a build's stages, of what reads what, and of the exports.
pub(super) fn new_plan(
    plan: &Plan,
    decided: &[Decided],
    settings: &Settings,
    exports: Vec<Export>,
) -> Result<NewPlan, AppError> {
    let ids: Vec<StageId> = plan.stages.iter().map(|_| StageId(Uuid::now_v7())).collect();
    let depths = depths(plan);
    let stale = stale_steps(plan, &|stage| settings.is_fresh(stage));
    let mut stages = Vec::new();
    let mut edges = Vec::new();
    for (position, (stage, decided)) in plan.stages.iter().zip(decided).enumerate() {
        let stage_row = new_stage(plan, stage, decided, settings, &ids, depths[position])?;
        stages.push(NewStage { may_attach: stale[position].is_none(), ..stage_row });
        let waits = matches!(decided.decision, Decision::Run { base_layers: None, .. });
        for producer in stage.inputs() {
            let is_base = waits && stage.base == Base::Stage(producer);
            let producer = ids[producer.0 as usize];
            edges.push(NewEdge { consumer: ids[position], producer, is_base });
        }
    }
    for export in exports {
        let targets = plan.targets.get(export.targets.clone()).unwrap_or_default();
        let export = new_export(plan, decided, export, &ids, &mut edges)?;
        if !export.is_goal {
            for target in targets {
                stages[target.stage.0 as usize].is_goal = true;
            }
        }
        stages.push(export);
    }
    let first_keys = first_keys(plan, decided, settings);
    Ok(NewPlan {
        context: None,
        inputs: Vec::new(),
        stages,
        edges,
        warnings: Vec::new(),
        first_keys,
    })
}

fn new_export(
    plan: &Plan,
    decided: &[Decided],
    Export { name, targets, outputs, awaits_digests }: Export,
    ids: &[StageId],
    edges: &mut Vec<NewEdge>,
) -> Result<NewStage, AppError> {
    let id = StageId(Uuid::now_v7());
    let (mut images, mut missing) = (Vec::new(), BTreeSet::new());
    for target in plan.targets.get(targets).unwrap_or_default() {
        let position = target.stage.0 as usize;
        let layers = match &decided[position].decision {
            Decision::Cached { layers } => Some(layers.clone()),
            _ => None,
        };
        let is_base = layers.is_none();
        if is_base {
            missing.insert(position);
        }
        edges.push(NewEdge { consumer: id, producer: ids[position], is_base });
        let (document, base_history) = image_document(plan, target);
        let last_key = plan.stages[position].steps.last().map(|step| step.key);
        let stage = ids[position];
        images.push(PlannedImage { stage, document, base_history, last_key, layers });
    }
    let Outputs { targets, source_date_epoch } = outputs;
    let makes_nothing =
        targets.iter().all(|target| matches!(target, ExportTarget::DigestOnly { .. }));
    let label = name.map_or_else(|| "export".to_owned(), |name| format!("export {name}"));
    let export = ExportDocument { images, source_date_epoch, targets };
    Ok(NewStage {
        id,
        kind: StageKind::Export,
        label,
        state: if missing.is_empty() { StageState::Ready } else { StageState::Waiting },
        platform: Platform::host(),
        depth: 0,
        bases_missing: u32::try_from(missing.len()).unwrap_or(u32::MAX),
        plan: serde_json::to_value(&export)?,
        first_step: 0,
        base_layers: None,
        make_slices: Vec::new(),
        layers: None,
        slices: Vec::new(),
        steps: Vec::new(),
        placing: Placing::default(),
        key: None,
        may_attach: false,
        is_goal: awaits_digests || !makes_nothing,
    })
}

/// Keys of the steps that run first because the cache did not have them.
pub(super) fn first_keys(plan: &Plan, decided: &[Decided], settings: &Settings) -> Vec<Digest> {
    let stale = stale_steps(plan, &|stage| settings.is_fresh(stage));
    let first = |((stage, decided), stale): ((&PlannedStage, &Decided), Option<usize>)| {
        let Decision::Run { first_step, base_layers: Some(_), .. } = decided.decision else {
            return None;
        };
        let first = stage.steps.iter().position(|step| step.number >= first_step)?;
        let counts = stale.is_none_or(|stale| first < stale);
        counts.then(|| stage.steps[first].key)
    };
    plan.stages.iter().zip(decided).zip(stale).filter_map(first).collect()
}

fn new_stage(
    plan: &Plan,
    stage: &PlannedStage,
    decided: &Decided,
    settings: &Settings,
    ids: &[StageId],
    depth: u32,
) -> Result<NewStage, AppError> {
    let stage_ids = stage.inputs().into_iter().map(|input| (input, ids[input.0 as usize]));
    let document = StageDocument {
        stage: stage.clone(),
        stage_ids: stage_ids.collect(),
        images: used_images(plan, stage),
        contexts: settings.contexts_of(stage),
        secrets: settings.secrets_of(stage),
        agents: settings.agents_of(stage),
        input_keys: stage
            .inputs()
            .into_iter()
            .map(|input| (input, plan.stage(input).key))
            .collect(),
        looks_up: !settings.is_fresh(stage),
        fresh_caches: settings.is_fresh(stage),
        trust: settings.trust,
        compression: settings.compression,
    };
    // What a client brings is its build's alone: others cannot count on it.
    let brings_nothing =
        document.secrets.is_empty() && document.agents.is_empty() && !stage.steps.is_empty();
    let (state, first_step, base_layers, make_slices, layers) = match &decided.decision {
        Decision::Skipped => (StageState::Skipped, 0, None, Vec::new(), None),
        Decision::Cached { layers } => {
            (StageState::Cached, u32::MAX, None, Vec::new(), Some(layers.clone()))
        }
        Decision::Run { first_step, base_layers, make_slices } => {
            let state = if base_layers.is_some() { StageState::Ready } else { StageState::Waiting };
            (state, *first_step, base_layers.clone(), make_slices.clone(), None)
        }
    };
    let is_cached = |number: u32| state == StageState::Cached || number < first_step;
    let steps = stage.steps.iter().map(|step| NewStep {
        number: step.number,
        display: step.display.clone(),
        lines: step.lines,
        key: step.key,
        key_parts: step.key_parts.clone(),
        cached: is_cached(step.number) && state != StageState::Skipped,
    });
    Ok(NewStage {
        id: ids[stage.index.0 as usize],
        kind: StageKind::Stage,
        label: stage.label.clone(),
        state,
        platform: placement(stage, first_step),
        depth,
        bases_missing: u32::from(state == StageState::Waiting),
        plan: serde_json::to_value(&document)?,
        first_step: first_step.min(100_000),
        base_layers,
        make_slices,
        layers,
        slices: decided.slices.clone(),
        steps: steps.collect(),
        placing: Placing::default(),
        key: brings_nothing.then_some(stage.key),
        may_attach: true,
        is_goal: false,
    })
}

/// The platform of the workers that can take a stage: files can be copied anywhere.
fn placement(stage: &PlannedStage, first_step: u32) -> Platform {
    match first_command(stage, first_step) {
        Some(_) => stage.platform.clone(),
        None => Platform::host(),
    }
}

/// The first command of a stage that runs.
pub(super) fn first_command(stage: &PlannedStage, first_step: u32) -> Option<&Step> {
    let mut rest = stage.steps.iter().filter(|step| step.number >= first_step);
    rest.find(|step| matches!(step.op, Op::Run(_)))
}

fn used_images(plan: &Plan, stage: &PlannedStage) -> Vec<(u32, ResolvedImage)> {
    let base = match stage.base {
        Base::Image(image) => Some(image),
        Base::Scratch | Base::Stage(_) => None,
    };
    let copied = stage.steps.iter().flat_map(Step::sources).filter_map(|from| match from {
        CopyFrom::Image { image } => Some(*image),
        CopyFrom::Context
        | CopyFrom::Scratch
        | CopyFrom::NamedContext { .. }
        | CopyFrom::Stage { .. } => None,
    });
    let used: BTreeSet<_> = base.into_iter().chain(copied).collect();
    used.into_iter().map(|image| (image.0, plan.image(image).clone())).collect()
}

/// For each stage the number of jobs after it on the longest path; the export is one.
fn depths(plan: &Plan) -> Vec<u32> {
    let mut depths = vec![1; plan.stages.len()];
    for stage in plan.stages.iter().rev() {
        let own = depths[stage.index.0 as usize];
        for input in stage.inputs() {
            let input: StageIndex = input;
            let depth = &mut depths[input.0 as usize];
            *depth = (*depth).max(own + 1);
        }
    }
    // Steps that read a slice park meanwhile, so producers go first among equals.
    for stage in &plan.stages {
        for (producer, _) in stage.steps.iter().flat_map(Step::input_slices) {
            let producer = producer.0 as usize;
            depths[producer] = depths[producer].max(depths[stage.index.0 as usize] + 1);
        }
    }
    depths
}

/// The configuration of a target's image as far as the plan knows it, and how many of its
/// history entries come from the base image.
fn image_document(plan: &Plan, target: &PlanTarget) -> (ImageDocument, usize) {
    let target = plan.stage(target.stage);
    // That of the stage: FROM may have said another one than was asked for.
    let platform = &target.platform;
    let mut chain = vec![target];
    let mut bottom = target;
    while let Base::Stage(base) = bottom.base {
        bottom = plan.stage(base);
        chain.push(bottom);
    }
    let base = match bottom.base {
        Base::Image(image) => Some(&plan.image(image).document),
        Base::Scratch | Base::Stage(_) => None,
    };
    let mut history = base.map(|document| document.history.clone()).unwrap_or_default();
    let base_history = history.len();
    for stage in chain.iter().rev() {
        history.extend(stage.history.iter().cloned());
    }
    let variant = Some(platform.variant.clone()).filter(|variant| !variant.is_empty());
    let document = ImageDocument {
        created: None,
        author: target.author.clone(),
        architecture: platform.architecture.clone(),
        variant,
        os: platform.os.clone(),
        os_version: base.and_then(|document| document.os_version.clone()),
        config: target.config.clone(),
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
        history,
    };
    (document, base_history)
}
