//! From a request to stages in the database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::public::v1::{BuildRequest, NamedContextSource};
use blobstore::manifest::{self, MAX_STORED_BYTES};
use blobstore::names;
use common::outcome::Failure;
use common::plan::{DEFAULT_AGENT, Network, Op, Plan, PlannedStage, Security};
use common::stage::{StageKind, StageState};
use common::tree::Manifest;
use common::{BuildId, Digest, Domain, FailureClass, Platform, ProjectName, StageId};
use dockerfile::{Dockerfile, ImageFacts, Links, NamedContext, Options, Planned, context_name};
use logbus::Message;
use oci::Reference;
use store::{ClaimedBuild, NewPlan, ObjectKey, ObjectRow, StoreError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::decide::{Decided, Decision, decide};
use super::layouts::{Layouts, reference_of};
use super::new_plan::{Export, first_command, first_keys, new_plan};
use super::options::{Settings, options, platforms};
use super::outputs::Outputs;
use super::refresh::without_stages;
use super::remotes::{Asker, Servers};
use super::targets::{self, Earlier, Part, Places, Uses};
use super::{App, AppError};

/// How long an answer of a registry about a tag is good.
const IMAGE_AGE_SECS: f64 = 300.0;
/// Plans of one build that may turn out to be old before it is tried again later.
const PLAN_TRIES: usize = 5;
/// How long a plan waits for layers that are on their way, and how often it looks.
const LAYERS_LIMIT: Duration = Duration::from_secs(30);
const LAYERS_LOOK: Duration = Duration::from_millis(25);
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
    /// What is built, one after the other.
    pub(super) parts: Vec<Part>,
    /// Which of them has which stage.
    pub(super) uses: Uses,
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
            made = self.plan_and_save(build, planner) => made,
            () = self.keep_planning(build.id, planner) => {
                tracing::info!(build.id = %build.id, "planning is over: the build has another state");
                return;
            }
        };
        let result = match made {
            Ok(()) => {
                self.metrics.plans_total.with_label_values(&["planned"]).inc();
                Ok(())
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

    /// Makes a plan and stores it. What the cache has got meanwhile makes it an old one: then once
    /// more.
    async fn plan_and_save(&self, build: &ClaimedBuild, planner: Uuid) -> Result<(), PlanError> {
        for _ in 0..PLAN_TRIES {
            let plan = self.make_plan(build, planner).await?;
            match self.store.save_plan(build.id, &build.domain, planner, &plan).await {
                Ok(attached) => {
                    self.metrics.attached_total.inc_by(attached as u64);
                    let ready = plan.stages.iter().filter(|stage| {
                        stage.kind == StageKind::Export && stage.state == StageState::Ready
                    });
                    let exports: Vec<StageId> = ready.map(|stage| stage.id).collect();
                    self.answer_exports(&exports).await?;
                    return Ok(());
                }
                Err(StoreError::PlanIsOld) => {
                    tracing::debug!(build.id = %build.id, "the cache has changed: planning again");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::PlanIsOld.into())
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

    async fn make_plan(&self, build: &ClaimedBuild, planner: Uuid) -> Result<NewPlan, PlanError> {
        let request: BuildRequest = serde_json::from_value(build.request.clone())?;
        let fetcher = self.fetcher_of(build.id, &request).await?;
        let has_agent = request.agents.contains(DEFAULT_AGENT);
        let agent = has_agent.then(|| self.planner_agent(build.id, planner));
        let asker = agent.map_or(Asker::Nobody, Asker::Agent);
        let Prepared { plan, warnings, decided, parts, uses } =
            self.prepare(&request, &Servers { fetcher, asker }, Packs::Needed).await?;
        let mut exports = Vec::new();
        for part in &parts {
            let outputs = Outputs::of(&part.request, part.epoch)?;
            let (name, targets) = (part.name.clone(), part.targets.clone());
            let awaits_digests = request.await_digests;
            exports.push(Export { name, targets, outputs, awaits_digests });
        }
        let settings = Settings::of(&request, &parts, &plan, &uses);
        let mut stored = new_plan(&plan, &decided, &settings, exports)?;
        stored.context = targets::main_context(&parts);
        stored.inputs = targets::manifests(&parts);
        stored.warnings = warnings;
        let files: Vec<&str> = parts.iter().map(targets::dockerfile).collect();
        let of_stages = plan.stages.iter().map(|stage| {
            let part = uses.of(stage.index).next().unwrap_or(0);
            files.get(part).copied().unwrap_or_default()
        });
        // Exports follow, one for each part.
        let dockerfiles: Vec<&str> = of_stages.chain(files.iter().copied()).collect();
        self.place(&request, &dockerfiles, &mut stored).await?;
        Ok(stored)
    }

    /// Plans a request and looks everything up in the cache. Repositories over ssh are asked after
    /// with the agent.
    pub(super) async fn prepare(
        &self,
        request: &BuildRequest,
        servers: &Servers,
        packs: Packs,
    ) -> Result<Prepared, PlanError> {
        let mut parts = targets::parts(request);
        let files = targets::parse(&parts)?;
        let main = targets::main_context(&parts);
        let (mut earlier, mut contexts) = (Earlier::default(), BTreeMap::new());
        for (position, (part, file)) in parts.iter_mut().zip(&files).enumerate() {
            let own = targets::manifest_of(&part.request);
            if let Some(digest) = own.filter(|digest| !contexts.contains_key(digest)) {
                contexts.insert(digest, self.context(&request.project, &digest, packs).await?);
            }
            let context = own.and_then(|digest| contexts.get(&digest));
            let planned = self.plan_part(part, file, context, servers, &earlier, packs).await;
            let start = earlier.count();
            for (mut planned, links) in planned.map_err(|error| part.blame(error))? {
                if part.name.is_some() {
                    targets::rename_contexts(&mut planned.plan, &part.request, main);
                }
                part.epoch = planned.epoch;
                earlier.add(planned, links, position);
            }
            part.targets = start..earlier.count();
            earlier.end(part);
        }
        let Some((planned, uses)) = earlier.planned() else {
            return Err(join(Vec::new()));
        };
        if let Some(violation) = planned.violation {
            return Err(violation.into());
        }
        let file = Places { parts: &parts, files: &files, uses: &uses };
        if request.trust.is_untrusted() {
            check_privileges(&file, &planned.plan)?;
        }
        let settings = Settings::of(request, &parts, &planned.plan, &uses);
        let decided = match packs {
            Packs::Needed => self.settled(&request.domain(), &planned.plan, &settings).await?,
            Packs::NotNeeded => self.decide(&request.domain(), &planned.plan, &settings).await?,
        };
        let missing = settings.missing(&file, &planned.plan, &decided);
        if !missing.is_empty() {
            return Err(join(missing));
        }
        self.check_platforms(&file, &planned.plan, &decided).await?;
        let found = planned.findings.iter().map(ToString::to_string);
        let warnings = planned.warnings.iter().cloned().chain(found).collect();
        Ok(Prepared { plan: planned.plan, warnings, decided, parts, uses })
    }

    /// The plans of one part, one for each platform.
    async fn plan_part(
        &self,
        part: &Part,
        file: &Dockerfile,
        context: Option<&Manifest>,
        servers: &Servers,
        earlier: &Earlier,
        packs: Packs,
    ) -> Result<Vec<(Planned, Links)>, PlanError> {
        let request = &part.request;
        let layouts = Layouts::of(request)?;
        let mut plans = Vec::new();
        for options in self.options(request, packs).await? {
            let known = (&layouts, earlier);
            let (images, links) = self.images(file, &options, request, known, packs).await?;
            plans.push((servers.plan_file(file, options, &images, context).await?, links));
        }
        Ok(plans)
    }

    /// Commands run where a worker of their platform is, or has been.
    async fn check_platforms(
        &self,
        file: &Places<'_>,
        plan: &Plan,
        decided: &[Decided],
    ) -> Result<(), PlanError> {
        let host = Platform::host();
        let mut known: Option<Vec<Platform>> = None;
        for (stage, decided) in plan.stages.iter().zip(decided) {
            let Decision::Run { first_step, .. } = decided.decision else { continue };
            let Some(step) = first_command(stage, first_step) else { continue };
            if stage.platform == host {
                continue;
            }
            let known = match &known {
                Some(known) => known,
                None => &*known.insert(self.store.worker_platforms().await?),
            };
            if !known.contains(&stage.platform) {
                let message = format!("no worker runs commands for {}", stage.platform);
                let hint = "start the stage with FROM --platform=$BUILDPLATFORM and build for \
                            $TARGETARCH there, or add a worker of that platform";
                let failure = Failure::new(FailureClass::User, "no-such-worker", message);
                return Err(file
                    .place(failure.with_hint(hint), stage.index, step.lines, None)
                    .into());
            }
        }
        Ok(())
    }

    /// What the planner is told, for each platform.
    pub(super) async fn options(
        &self,
        request: &BuildRequest,
        packs: Packs,
    ) -> Result<Vec<Options>, PlanError> {
        let contexts = self.named_contexts(request, packs).await?;
        let of = |platform| options(request, contexts.clone(), platform);
        Ok(platforms(request).into_iter().map(of).collect())
    }

    /// The named contexts, those of files with their lists.
    async fn named_contexts(
        &self,
        request: &BuildRequest,
        packs: Packs,
    ) -> Result<BTreeMap<String, NamedContext>, PlanError> {
        let mut contexts = BTreeMap::new();
        for (name, source) in &request.contexts {
            let context = match source {
                NamedContextSource::Image { reference } => NamedContext::Image(reference.clone()),
                NamedContextSource::Layout { .. } => NamedContext::Image(reference_of(name)),
                NamedContextSource::Target { name } => {
                    NamedContext::Image(targets::reference(name))
                }
                NamedContextSource::Files { manifest, .. } => {
                    let manifest = self.context(&request.project, manifest, packs).await?;
                    NamedContext::Local(Arc::new(manifest))
                }
            };
            contexts.insert(context_name(name), context);
        }
        Ok(contexts)
    }

    /// Looks up every image that the Dockerfile needs, once for the whole build; also those that
    /// stand for what earlier targets make.
    pub(super) async fn images(
        &self,
        file: &Dockerfile,
        options: &Options,
        request: &BuildRequest,
        (layouts, earlier): (&Layouts, &Earlier),
        packs: Packs,
    ) -> Result<(ImageFacts, Links), PlanError> {
        let (mut known, mut links) = (ImageFacts::new(), Links::new());
        loop {
            let missing = file.missing_images(options, &known).map_err(join)?;
            if missing.is_empty() {
                return Ok((known, links));
            }
            for need in missing {
                let place = |failure: Failure| {
                    let mut failure = file.place(failure, need.lines, Some(&need.reference));
                    if failure.code == "image-not-found" && need.hint.is_some() {
                        failure.hint.clone_from(&need.hint);
                    }
                    PlanError::from(failure)
                };
                if let Some(found) = earlier.find(&need.reference, &need.platform) {
                    let (image, stage) = found.map_err(place)?;
                    links.insert(image.reference.clone(), stage);
                    known.insert((need.reference, need.platform), image);
                    continue;
                }
                if let Some(found) = layouts.find(&need.reference, &need.platform) {
                    let image = found.map_err(place)?;
                    self.check_brought(&request.project, image, packs).await?;
                    known.insert((need.reference, need.platform), image.clone());
                    continue;
                }
                let reference: Reference = need.reference.parse().map_err(|error| {
                    let error: oci::reference::InvalidReference = error;
                    let code = "invalid-reference";
                    place(Failure::new(FailureClass::User, code, error.to_string()))
                })?;
                let age = if request.pull { 0.0 } else { IMAGE_AGE_SECS };
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
    pub(super) async fn context(
        &self,
        project: &ProjectName,
        digest: &Digest,
        packs: Packs,
    ) -> Result<Manifest, PlanError> {
        let name = names::manifest(project, digest);
        let bytes = match self.objects.get_checked(&name, digest, MAX_STORED_BYTES).await {
            Ok(bytes) => bytes,
            Err(blobstore::objects::ObjectError::Store { action, name, message }) => {
                return Err(blobstore::objects::ObjectError::Store { action, name, message }.into());
            }
            Err(error) => {
                // Otherwise whoever sends it again would be told that it is there.
                let key = ObjectKey { kind: "manifest", digest: *digest };
                if self.store.strike_out(project, &key).await? {
                    tracing::error!(%error, "an object was struck out");
                }
                return Err(incomplete(error.to_string()));
            }
        };
        let manifest = manifest::decode(&bytes).map_err(|error| incomplete(error.to_string()))?;
        if packs == Packs::NotNeeded {
            return Ok(manifest);
        }
        let packs = manifest.packs.iter().map(|pack| (pack.digest, pack.size_bytes)).collect();
        let mut arrived = self.arrived(project, "pack", packs).await?;
        let key = ObjectKey { kind: "manifest", digest: *digest };
        arrived.push(ObjectRow { key, size_bytes: bytes.len() as u64 });
        let packs: Vec<Digest> = manifest.packs.iter().map(|pack| pack.digest).collect();
        self.store.mark_present(project, &arrived, Some((digest, &packs))).await?;
        Ok(manifest)
    }

    /// Makes sure that all parts of something have arrived, each a digest and a length; the answer is
    /// those of which that is news.
    pub(super) async fn arrived(
        &self,
        project: &ProjectName,
        kind: &'static str,
        parts: Vec<(Digest, u64)>,
    ) -> Result<Vec<ObjectRow>, PlanError> {
        let row = |(digest, size_bytes): &(Digest, u64)| ObjectRow {
            key: ObjectKey { kind, digest: *digest },
            size_bytes: *size_bytes,
        };
        let rows: Vec<ObjectRow> = parts.iter().map(row).collect();
        let present = self.store.present_objects(project, &rows).await?;
        let mut arrived = Vec::new();
        for (digest, size_bytes) in parts {
            if present.contains(&(kind.to_owned(), digest)) {
                continue;
            }
            let name = match kind {
                "blob" => names::blob(project, &digest),
                _ => names::pack(project, &digest),
            };
            if self.objects.size(&name).await? != Some(size_bytes) {
                return Err(incomplete(format!("the {kind} {} is missing", digest.short())));
            }
            arrived.push(ObjectRow { key: ObjectKey { kind, digest }, size_bytes });
        }
        Ok(arrived)
    }

    /// Decides, when no layer is on its way that would change what has to run: layers are stored a
    /// moment after their steps have ended.
    async fn settled(
        &self,
        domain: &Domain,
        plan: &Plan,
        settings: &Settings,
    ) -> Result<Vec<Decided>, PlanError> {
        let until = Instant::now() + LAYERS_LIMIT;
        loop {
            let decided = self.decide(domain, plan, settings).await?;
            let first = first_keys(plan, &decided, settings);
            if first.is_empty() || Instant::now() > until {
                return Ok(decided);
            }
            let unsettled = self.store.unsettled_keys(domain, &first).await?;
            if unsettled.is_empty() {
                return Ok(decided);
            }
            // Who shares the run of a whole stage need not wait for it here.
            let stages: Vec<&PlannedStage> = plan
                .stages
                .iter()
                .filter(|stage| stage.steps.iter().any(|step| unsettled.contains(&step.key)))
                .collect();
            let keys: Vec<Digest> = stages.iter().map(|stage| stage.key).collect();
            let running = self.store.running_keys(domain, &keys).await?;
            if keys.iter().all(|key| running.contains(key)) {
                return Ok(decided);
            }
            tokio::time::sleep(LAYERS_LOOK).await;
        }
    }

    async fn decide(
        &self,
        domain: &Domain,
        plan: &Plan,
        settings: &Settings,
    ) -> Result<Vec<Decided>, PlanError> {
        if plan.stages.iter().all(|stage| settings.is_fresh(stage)) {
            return Ok(decide(plan, &BTreeMap::new(), &BTreeMap::new()));
        }
        let keys: Vec<Digest> =
            plan.stages.iter().flat_map(|stage| stage.steps.iter().map(|step| step.key)).collect();
        let mut hits = self.store.find_layers(domain, &keys).await?;
        let stage_keys: Vec<Digest> = plan.stages.iter().map(|stage| stage.key).collect();
        let mut slices = self.store.find_slices(domain, &stage_keys).await?;
        if settings.has_fresh_stages() {
            without_stages(plan, &|stage| settings.is_fresh(stage), &mut hits, &mut slices);
        }
        Ok(decide(plan, &hits, &slices))
    }
}

/// Commands of strangers get nothing that operators allow for those of their own projects.
fn check_privileges(file: &Places<'_>, plan: &Plan) -> Result<(), PlanError> {
    let commands = plan.stages.iter().flat_map(|stage| {
        stage.steps.iter().filter_map(move |step| match &step.op {
            Op::Run(run) => Some((stage, step, run)),
            Op::Copy(_) | Op::Workdir(_) => None,
        })
    });
    for (stage, step, run) in commands {
        let asks = match (run.security, run.network) {
            (Security::Insecure, _) => "--security=insecure",
            (_, Network::Host) => "--network=host",
            _ => continue,
        };
        let message = format!("{asks} is not for untrusted builds");
        let failure = Failure::new(FailureClass::User, "untrusted", message);
        return Err(file.place(failure, stage.index, step.lines, Some(asks)).into());
    }
    Ok(())
}

fn incomplete(what: String) -> PlanError {
    Failure::new(FailureClass::User, "context-incomplete", what)
        .with_hint("the upload did not finish: run the build again")
        .into()
}

/// Several failures as one: the first has the place, the others follow in words.
pub(super) fn join(failures: Vec<Failure>) -> PlanError {
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
