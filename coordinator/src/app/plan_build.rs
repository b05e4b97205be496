//! From a request to stages in the database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::public::v1::{BuildRequest, BuildSource, OutputRequest};
use api::worker::v1::ExportTarget;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use blobstore::manifest::{self, MAX_STORED_BYTES};
use blobstore::names;
use common::image::ImageDocument;
use common::outcome::Failure;
use common::plan::{Base, CopyFrom, Plan, PlannedStage, StageIndex, Step};
use common::stage::{StageKind, StageState};
use common::tree::Manifest;
use common::{BuildId, Digest, FailureClass, Platform, ProjectName, StageId};
use dockerfile::{Dockerfile, ImageFacts, Options};
use logbus::Message;
use oci::Reference;
use store::{ClaimedBuild, NewEdge, NewPlan, NewStage, NewStep, ObjectKey, ObjectRow};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::decide::{Decided, Decision, decide};
use super::documents::{ExportDocument, StageDocument};
use super::{App, AppError};

/// How long an answer of a registry about a tag is good.
const IMAGE_AGE_SECS: f64 = 300.0;
/// Longest time that a planner sleeps without a wake-up.
const IDLE: Duration = Duration::from_secs(2);

/// Whether the files of the context have to be there, or its list is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packs {
    /// A build follows.
    Needed,
    /// Nothing will run.
    NotNeeded,
}

/// A plan, and what the cache says to it.
pub(super) struct Prepared {
    pub(super) plan: Plan,
    pub(super) warnings: Vec<String>,
    /// One for each stage, in order.
    pub(super) decided: Vec<Decided>,
}

/// Why a plan was not made.
pub(super) enum PlanError {
    /// The build has failed, and this is why.
    Failed(Box<Failure>),
    /// Something of ours failed: another try may work.
    Internal(AppError),
}

impl From<Failure> for PlanError {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl<E: Into<AppError>> From<E> for PlanError {
    fn from(error: E) -> Self {
        Self::Internal(error.into())
    }
}

/// Plans builds until `stop`.
pub(crate) async fn run_planner(app: Arc<App>, stop: CancellationToken) {
    let planner = Uuid::new_v4();
    let mut wakes = app.bus.subscribe();
    while !stop.is_cancelled() {
        match app.store.claim_build(planner).await {
            Ok(Some(build)) => {
                app.plan(&build, planner).await;
                continue;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "could not look for builds to plan"),
        }
        let wake = async { while !matches!(wakes.recv().await, Ok(Message::Planner) | Err(_)) {} };
        tokio::select! {
            () = wake => {}
            () = tokio::time::sleep(IDLE) => {}
            () = stop.cancelled() => return,
        }
    }
}

impl App {
    async fn plan(&self, build: &ClaimedBuild, planner: Uuid) {
        // Registries may be slow: the lease is kept meanwhile, and a cancelled build is let go.
        let made = tokio::select! {
            made = self.make_plan(build) => made,
            () = self.keep_planning(build.id, planner) => {
                tracing::info!(build.id = %build.id, "planning is over: the build has another state");
                return;
            }
        };
        let result = match made {
            Ok(plan) => {
                self.metrics.plans_total.with_label_values(&["planned"]).inc();
                self.store.save_plan(build.id, &build.project, planner, &plan).await
            }
            Err(PlanError::Failed(failure)) => {
                self.metrics.plans_total.with_label_values(&["failed"]).inc();
                tracing::info!(build.id = %build.id, code = failure.code, "the plan failed");
                self.store.fail_planning(build.id, planner, &failure).await
            }
            Err(PlanError::Internal(error)) => {
                tracing::warn!(build.id = %build.id, %error, "planning will be tried again");
                self.store.release_build(build.id, planner).await
            }
        };
        if let Err(error) = result {
            // Cancelled meanwhile, or the database is away; the lease runs out.
            tracing::warn!(build.id = %build.id, %error, "the plan could not be stored");
        }
        self.bus.send(Message::Workers);
        self.bus.send(Message::Build(build.id));
    }

    /// Renews the planner's lease; ends when the build is not to be planned any more.
    async fn keep_planning(&self, build: BuildId, planner: Uuid) {
        loop {
            tokio::time::sleep(store::PLANNER_RENEW).await;
            match self.store.renew_planning(build, planner).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::debug!(%error, "the planner's lease was not renewed"),
            }
        }
    }

    async fn make_plan(&self, build: &ClaimedBuild) -> Result<NewPlan, PlanError> {
        let request: BuildRequest = serde_json::from_value(build.request.clone())?;
        let Prepared { plan, mut warnings, decided } =
            self.prepare(&request, Packs::Needed).await?;
        let epoch = source_date_epoch(&request, &mut warnings);
        let BuildSource::Context(source) = &request.source;
        let mut stored = new_plan(&plan, &decided, targets(&request), epoch)?;
        stored.context = source.manifest;
        stored.warnings = warnings;
        Ok(stored)
    }

    /// Plans a request and looks everything up in the cache.
    pub(super) async fn prepare(
        &self,
        request: &BuildRequest,
        packs: Packs,
    ) -> Result<Prepared, PlanError> {
        let BuildSource::Context(source) = &request.source;
        let bytes = BASE64_STANDARD.decode(&source.dockerfile.content_base64).unwrap_or_default();
        let file = dockerfile::parse(&source.dockerfile.name, &bytes).map_err(join)?;
        let host = Platform::host();
        let options = Options {
            target: request.target.clone(),
            build_args: request.build_args.clone(),
            labels: request.labels.clone(),
            platform: request.platform.clone().unwrap_or_else(|| host.clone()),
            ..Options::new(host)
        };
        let images = self.images(&file, &options, request.pull).await?;
        let context = match &source.manifest {
            Some(digest) => Some(self.context(&request.project, digest, packs).await?),
            None => None,
        };
        let planned = file.plan(&options, &images, context.as_ref()).map_err(join)?;
        let decided = self.decide(&request.project, &planned.plan, request.no_cache).await?;
        Ok(Prepared { plan: planned.plan, warnings: planned.warnings, decided })
    }

    /// Looks up every image that the Dockerfile needs, once for the whole build.
    async fn images(
        &self,
        file: &Dockerfile,
        options: &Options,
        pull: bool,
    ) -> Result<ImageFacts, PlanError> {
        let mut known = ImageFacts::new();
        loop {
            let missing = file.missing_images(options, &known).map_err(join)?;
            if missing.is_empty() {
                return Ok(known);
            }
            for need in missing {
                let place = |mut failure: Failure| {
                    failure.lines = Some(need.lines);
                    failure.file = Some(file.name().to_owned());
                    failure.excerpt = file.excerpt(need.lines);
                    if failure.code == "image-not-found" && need.hint.is_some() {
                        failure.hint.clone_from(&need.hint);
                    }
                    PlanError::from(failure)
                };
                let reference: Reference = need.reference.parse().map_err(|error| {
                    let error: oci::reference::InvalidReference = error;
                    let code = "invalid-reference";
                    place(Failure::new(FailureClass::User, code, error.to_string()))
                })?;
                let age = if pull { 0.0 } else { IMAGE_AGE_SECS };
                let name = reference.to_string();
                let image = match self.store.known_image(&name, &need.platform, age).await? {
                    Some(image) => image,
                    None => {
                        let image = self
                            .registry
                            .resolve(&reference, &need.platform)
                            .await
                            .map_err(|error| place(error.failure()))?;
                        self.store.remember_image(&name, &need.platform, &image).await?;
                        image
                    }
                };
                known.insert((need.reference, need.platform), image);
            }
        }
    }

    /// Reads the context's manifest and, where the files are needed, makes sure that all of them
    /// have arrived.
    async fn context(
        &self,
        project: &ProjectName,
        digest: &Digest,
        packs: Packs,
    ) -> Result<Manifest, PlanError> {
        let incomplete = |what: String| {
            PlanError::from(
                Failure::new(FailureClass::User, "context-incomplete", what)
                    .with_hint("the upload did not finish: run the build again"),
            )
        };
        let name = names::manifest(project, digest);
        let bytes = match self.objects.get_checked(&name, digest, MAX_STORED_BYTES).await {
            Ok(bytes) => bytes,
            Err(blobstore::objects::ObjectError::Store { action, name, message }) => {
                return Err(blobstore::objects::ObjectError::Store { action, name, message }.into());
            }
            Err(error) => return Err(incomplete(error.to_string())),
        };
        let manifest = manifest::decode(&bytes).map_err(|error| incomplete(error.to_string()))?;
        if packs == Packs::NotNeeded {
            return Ok(manifest);
        }
        let keys: Vec<ObjectKey> = manifest
            .packs
            .iter()
            .map(|pack| ObjectKey { kind: "pack", digest: pack.digest })
            .collect();
        let present = self.store.present_objects(project, &keys).await?;
        let mut arrived = vec![ObjectRow {
            key: ObjectKey { kind: "manifest", digest: *digest },
            size_bytes: bytes.len() as u64,
        }];
        for pack in &manifest.packs {
            if present.contains(&("pack".to_owned(), pack.digest)) {
                continue;
            }
            let size = self.objects.size(&names::pack(project, &pack.digest)).await?;
            if size != Some(pack.size_bytes) {
                return Err(incomplete(format!("the pack {} is missing", pack.digest.short())));
            }
            let key = ObjectKey { kind: "pack", digest: pack.digest };
            arrived.push(ObjectRow { key, size_bytes: pack.size_bytes });
        }
        self.store.mark_present(project, &arrived).await?;
        Ok(manifest)
    }

    async fn decide(
        &self,
        project: &ProjectName,
        plan: &Plan,
        no_cache: bool,
    ) -> Result<Vec<Decided>, PlanError> {
        if no_cache {
            return Ok(decide(plan, &BTreeMap::new(), &BTreeMap::new()));
        }
        let keys: Vec<Digest> =
            plan.stages.iter().flat_map(|stage| stage.steps.iter().map(|step| step.key)).collect();
        let hits = self.store.find_layers(project, &keys).await?;
        let stage_keys: Vec<Digest> = plan.stages.iter().map(|stage| stage.key).collect();
        let slices = self.store.find_slices(project, &stage_keys).await?;
        Ok(decide(plan, &hits, &slices))
    }
}

/// Several failures as one: the first has the place, the others follow in words.
fn join(failures: Vec<Failure>) -> PlanError {
    let mut failures = failures.into_iter();
    let Some(mut first) = failures.next() else {
        return Failure::new(FailureClass::User, "unknown", "the Dockerfile is not valid").into();
    };
    let more: Vec<String> = failures.map(|failure| failure.to_string()).collect();
    if !more.is_empty() {
        let also = format!("also wrong: {}", more.join("; "));
        first.hint = Some(match first.hint {
            Some(hint) => format!("{hint}\n{also}"),
            None => also,
        });
    }
    first.into()
}

fn source_date_epoch(request: &BuildRequest, warnings: &mut Vec<String>) -> Option<i64> {
    let text = request.build_args.get("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty())?;
    let number = text.parse().ok();
    if number.is_none() {
        warnings.push(format!("SOURCE_DATE_EPOCH is ignored: {text:?} is no number of seconds"));
    }
    number
}

fn targets(request: &BuildRequest) -> Vec<ExportTarget> {
    let full = |names: &[String]| -> Vec<String> {
        names.iter().filter_map(|n| Some(n.parse::<Reference>().ok()?.to_string())).collect()
    };
    let mut targets: Vec<ExportTarget> = request
        .outputs
        .iter()
        .map(|output| match output {
            OutputRequest::Image { names, push: true } => ExportTarget::Push { names: full(names) },
            OutputRequest::Image { .. } => ExportTarget::DigestOnly,
            OutputRequest::Oci { names } => ExportTarget::OciArchive { names: full(names) },
        })
        .collect();
    if targets.is_empty() {
        targets.push(ExportTarget::DigestOnly);
    }
    targets
}

fn new_plan(
    plan: &Plan,
    decided: &[Decided],
    targets: Vec<ExportTarget>,
    source_date_epoch: Option<i64>,
) -> Result<NewPlan, AppError> {
    let ids: Vec<StageId> = plan.stages.iter().map(|_| StageId(Uuid::now_v7())).collect();
    let depths = depths(plan);
    let mut stages = Vec::new();
    let mut edges = Vec::new();
    for (position, (stage, decided)) in plan.stages.iter().zip(decided).enumerate() {
        stages.push(new_stage(plan, stage, decided, &ids, depths[position])?);
        let waits = matches!(decided.decision, Decision::Run { base_layers: None, .. });
        for producer in stage.inputs() {
            let is_base = waits && stage.base == Base::Stage(producer);
            let producer = ids[producer.0 as usize];
            edges.push(NewEdge { consumer: ids[position], producer, is_base });
        }
    }
    let target = plan.target.0 as usize;
    let layers = match &decided[target].decision {
        Decision::Cached { layers } => Some(layers.clone()),
        _ => None,
    };
    let (id, is_ready) = (StageId(Uuid::now_v7()), layers.is_some());
    edges.push(NewEdge { consumer: id, producer: ids[target], is_base: !is_ready });
    let (document, base_history) = image_document(plan);
    let export = ExportDocument {
        document,
        base_history,
        last_key: plan.stages[target].steps.last().map(|step| step.key),
        source_date_epoch,
        targets,
        layers,
    };
    stages.push(NewStage {
        id,
        kind: StageKind::Export,
        label: "export".to_owned(),
        state: if is_ready { StageState::Ready } else { StageState::Waiting },
        platform: Platform::host(),
        depth: 0,
        bases_missing: u32::from(!is_ready),
        plan: serde_json::to_value(&export)?,
        first_step: 0,
        base_layers: None,
        make_slices: Vec::new(),
        layers: None,
        slices: Vec::new(),
        steps: Vec::new(),
    });
    Ok(NewPlan { context: None, stages, edges, warnings: Vec::new() })
}

fn new_stage(
    plan: &Plan,
    stage: &PlannedStage,
    decided: &Decided,
    ids: &[StageId],
    depth: u32,
) -> Result<NewStage, AppError> {
    let stage_ids = stage.inputs().into_iter().map(|input| (input, ids[input.0 as usize]));
    let document = StageDocument {
        stage: stage.clone(),
        stage_ids: stage_ids.collect(),
        images: used_images(plan, stage),
    };
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
        platform: stage.platform.clone(),
        depth,
        bases_missing: u32::from(state == StageState::Waiting),
        plan: serde_json::to_value(&document)?,
        first_step: first_step.min(100_000),
        base_layers,
        make_slices,
        layers,
        slices: decided.slices.clone(),
        steps: steps.collect(),
    })
}

fn used_images(plan: &Plan, stage: &PlannedStage) -> Vec<(u32, common::image::ResolvedImage)> {
    let base = match stage.base {
        Base::Image(image) => Some(image),
        Base::Scratch | Base::Stage(_) => None,
    };
    let copied = stage.steps.iter().flat_map(Step::sources).filter_map(|from| match from {
        CopyFrom::Image { image } => Some(*image),
        CopyFrom::Context | CopyFrom::NamedContext { .. } | CopyFrom::Stage { .. } => None,
    });
    let used: std::collections::BTreeSet<_> = base.into_iter().chain(copied).collect();
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

/// The configuration of the target's image as far as the plan knows it, and how many of its
/// history entries come from the base image.
fn image_document(plan: &Plan) -> (ImageDocument, usize) {
    let target = plan.stage(plan.target);
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
    let variant = Some(plan.platform.variant.clone()).filter(|variant| !variant.is_empty());
    let document = ImageDocument {
        created: None,
        author: target.author.clone(),
        architecture: plan.platform.architecture.clone(),
        variant,
        os: plan.platform.os.clone(),
        os_version: base.and_then(|document| document.os_version.clone()),
        config: target.config.clone(),
        rootfs: common::image::RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
        history,
    };
    (document, base_history)
}
