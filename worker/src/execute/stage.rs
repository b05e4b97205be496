//! A stage: base layers, steps, slices, layers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::public::v1::{LogStream, TimingView};
use api::worker::v1::{
    DoneReport, HeldPhase, LookupRequest, ObjectKind, ObjectName, StageJob, StageOutcome,
    StepReport, StepState,
};
use common::image::{Layer, LayerOrigin};
use common::plan::{Op, SliceSelector, Step};
use common::{Failure, FailureClass, Lease, ProjectName};
use layer::{Compression, PackError, PackedLayer};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use super::base::LocalBase;
use super::failure::JobError;
use super::image::compression;
use super::job::{Account, persist};
use super::reports::{Report, Reports};
use super::step::run_step;
use super::{slices, sources};
use crate::content::{Pin, Right, Scratch};
use crate::dispatch::{Held, Worker};
use crate::logs::LogWriter;
use crate::transfer::{DISK_FULL, ensure_layers, upload};

/// How long the end of a failed stage waits for the layers of the steps that went well.
const KEEP_LIMIT: Duration = Duration::from_secs(20);

/// In the directory of a step: its changes, and the layer that is made of them.
const UPPER: &str = "upper";
const BLOB: &str = "blob";

/// A stage that is being run.
pub(super) struct StageRun<'a> {
    pub(super) worker: &'a Arc<Worker>,
    pub(super) held: &'a Arc<Held>,
    pub(super) project: &'a ProjectName,
    pub(super) job: StageJob,
    pub(super) log: LogWriter,
    pub(super) account: &'a mut Account,
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// The layers below the next step, lowest first.
    pub(super) lowers: Vec<PathBuf>,
    /// Keep those in the store.
    pins: Vec<Pin>,
    /// Layers above those, which nobody has needed yet.
    unfetched: Vec<Layer>,
    /// The stage that it starts from, where that has just ended here.
    base: Option<LocalBase>,
    /// Tells others of its layers.
    publish: Option<watch::Sender<Option<Vec<Layer>>>>,
    /// What the steps have come to, in order.
    ended: Vec<Ended>,
    /// Slices that need not be made.
    found_slices: Vec<SliceSelector>,
    reports: Reports,
}

/// What a step has come to.
enum Ended {
    /// Its layer was there.
    Found(Layer),
    /// It ran.
    Ran(Pending),
}

/// A step that has ended and whose layer is being packed and sent.
struct Pending {
    number: u32,
    timing: TimingView,
    upper: PathBuf,
    blob: PathBuf,
    sending: AbortOnDropHandle<Result<SentLayer, JobError>>,
    /// Whether a layer can be made of it.
    scanned: oneshot::Receiver<()>,
    /// Holds both until they get their names.
    directory: Arc<Scratch>,
}

/// A layer that the farm has.
struct SentLayer {
    packed: PackedLayer,
    snapshot_millis: u64,
    upload_millis: u64,
    sent_bytes: u64,
}

/// Milliseconds since `start`.
pub(super) fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Runs a stage to its end.
pub(super) async fn run(
    worker: &Arc<Worker>,
    held: &Arc<Held>,
    project: &ProjectName,
    job: StageJob,
    log: LogWriter,
    account: &mut Account,
) -> Result<StageOutcome, JobError> {
    held.add_inputs(job.inputs.clone());
    let mut run = StageRun {
        worker,
        held,
        project,
        job,
        log,
        account,
        permit: None,
        lowers: Vec::new(),
        pins: Vec::new(),
        unfetched: Vec::new(),
        base: None,
        publish: None,
        ended: Vec::new(),
        found_slices: Vec::new(),
        reports: Reports::start(worker, held),
    };
    let outcome = run.all().await;
    if outcome.is_err() {
        run.keep_what_is_done().await;
        worker.content.forget_chain(held.lease.stage);
    }
    outcome
}

fn pack_failure(error: &PackError) -> Failure {
    match error {
        PackError::ReservedName { .. } => {
            Failure::new(FailureClass::User, "reserved-name", error.to_string())
                .with_hint("leave the file out, or give it another name")
        }
        PackError::Io { .. } => {
            let code = if error.is_disk_full() { DISK_FULL } else { "pack-failed" };
            Failure::new(FailureClass::Infrastructure, code, error.to_string())
        }
    }
}

/// Says where in the Dockerfile a failure belongs.
fn place(error: JobError, step: &Step) -> JobError {
    match error {
        JobError::Failed { mut failure, .. } => {
            failure.lines.get_or_insert(step.lines);
            failure.excerpt.get_or_insert_with(|| step.display.clone());
            JobError::Failed { failure, step: Some(step.number) }
        }
        JobError::Stopped => JobError::Stopped,
    }
}

impl StageRun<'_> {
    async fn all(&mut self) -> Result<StageOutcome, JobError> {
        self.take_slot().await?;
        self.unfetched = self.job.base_layers.clone();
        if let Some(stage) = self.job.unstored_base {
            let base = LocalBase::open(&self.worker.content, stage)?;
            self.lowers.clone_from(&base.local.chain.lowers);
            self.base = Some(base);
        }
        let first = self.job.first_step;
        let steps: Vec<Step> =
            self.job.stage.steps.iter().filter(|step| step.number >= first).cloned().collect();
        let mut steps = steps.iter();
        while let Some(step) = steps.next() {
            let found = self.look_up(step).await.map_err(|error| place(error, step))?;
            if found == 0 {
                self.step(step).await.map_err(|error| place(error, step))?;
            }
            // One is this one.
            steps.by_ref().take(found.saturating_sub(1)).for_each(drop);
        }
        self.slices().await?;
        self.done().await?;
        let layers = self.layers().await?;
        self.reports.flush().await?;
        Ok(StageOutcome::Succeeded { layers, exports: Vec::new() })
    }

    /// Waits for a free slot.
    pub(super) async fn take_slot(&mut self) -> Result<(), JobError> {
        let permits = Arc::clone(&self.worker.permits);
        let permit = tokio::select! {
            permit = permits.acquire_owned() => permit.map_err(|_| JobError::Stopped)?,
            () = self.held.cancel.cancelled() => return Err(JobError::Stopped),
        };
        self.permit = Some(permit);
        self.held.set_phase(HeldPhase::Running);
        self.worker.changed.notify_one();
        Ok(())
    }

    /// Frees the slot.
    pub(super) fn free_slot(&mut self) {
        self.permit = None;
        self.worker.changed.notify_one();
    }

    /// Fetches the layers that the next step stands on.
    async fn fetch(&mut self) -> Result<(), JobError> {
        let wanted = std::mem::take(&mut self.unfetched);
        if wanted.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        let asker = self.held.asker();
        let fetch = ensure_layers(self.worker, &asker, &wanted);
        let chain = tokio::select! {
            chain = fetch => chain?,
            () = self.held.cancel.cancelled() => return Err(JobError::Stopped),
        };
        self.lowers.extend(chain.lowers);
        self.pins.extend(chain.pins);
        self.account.timing.fetch_millis += millis(start);
        Ok(())
    }

    /// Waits for what a step reads of other stages, and asks whether it has to run, now that this is
    /// known. Returns how many steps, with this one, need not.
    async fn look_up(&mut self, step: &Step) -> Result<usize, JobError> {
        let reads = step.input_slices().next().is_some();
        let is_new = self.job.base_is_new && self.ended.is_empty();
        if !self.job.looks_up || !(reads || is_new) {
            return Ok(0);
        }
        if reads && !sources::are_there(self, step)? {
            // There is time for it.
            self.fetch().await?;
            let mut timing = TimingView::default();
            sources::wait_for(self, step, &mut timing).await?;
            self.add_timing(timing);
        }
        // Its keys go by what the steps before it are known to have been.
        let request = LookupRequest { lease: self.held.lease, step: step.number };
        let found = persist(self.held, || self.worker.client.look_up(&request)).await?;
        for layer in &found.layers {
            self.unfetched.push(layer.clone());
            self.ended.push(Ended::Found(layer.clone()));
        }
        if !found.layers.is_empty() {
            let text = "cached: what it reads is what it has read before".to_owned();
            self.log.line(step.number, LogStream::System, text).await;
        }
        self.found_slices.extend(found.slices);
        Ok(found.layers.len())
    }

    async fn step(&mut self, step: &Step) -> Result<(), JobError> {
        self.fetch().await?;
        let mut timing = TimingView::default();
        self.report(step.number, StepState::Running, timing, None).await?;
        self.log.line(step.number, LogStream::System, step.display.clone()).await;
        let directory = self.worker.content.shared_scratch()?;
        let upper = directory.path().join(UPPER);
        let ran = run_step(self, step, directory.path(), &upper, &mut timing).await;
        self.add_timing(timing);
        if let Err(error) = ran {
            if !self.held.cancel.is_cancelled() {
                self.report(step.number, StepState::Failed, timing, None).await?;
            }
            return Err(error);
        }
        // The next step goes on at once; the layer is made meanwhile.
        // One that stands alone is not compared with what is below it.
        let lowers = if stands_alone(step) { Vec::new() } else { self.lowers.clone() };
        let blob = directory.path().join(BLOB);
        let form = compression(self.job.compression);
        let (said, scanned) = oneshot::channel();
        let packing = pack_and_send(
            Arc::clone(self.worker),
            self.held.lease,
            Arc::clone(&directory),
            (lowers, form),
            said,
        );
        let sending = AbortOnDropHandle::new(tokio::spawn(packing));
        self.lowers.push(upper.clone());
        let number = step.number;
        self.report(number, StepState::Done, timing, None).await?;
        let ran = Pending { number, timing, upper, blob, sending, scanned, directory };
        self.ended.push(Ended::Ran(ran));
        Ok(())
    }

    fn add_timing(&mut self, timing: TimingView) {
        let total = &mut self.account.timing;
        total.fetch_millis += timing.fetch_millis;
        total.run_millis += timing.run_millis;
        total.parked_millis += timing.parked_millis;
    }

    /// Makes the slices that others wait for, and frees the slot.
    async fn slices(&mut self) -> Result<(), JobError> {
        let mut wanted = self.job.make_slices.clone();
        wanted.retain(|selector| !self.found_slices.contains(selector));
        if !wanted.is_empty() {
            self.fetch().await?;
        }
        let stage = self.held.lease.stage;
        if self.unfetched.is_empty() {
            let below = self.base.as_ref().map(|base| base.local.chain.scratch.clone());
            let own = self.ran().map(|pending| Arc::clone(&pending.directory));
            let scratch = below.into_iter().flatten().chain(own).collect();
            if let Some(lowers) = self.places(self.lowers.clone()) {
                self.worker.content.remember_chain(stage, lowers, scratch);
            }
        }
        self.publish = Some(self.worker.published.announce(stage));
        let start = Instant::now();
        for selector in wanted {
            let making = slices::make(self.worker, self.held, &self.lowers, &selector);
            let sent = tokio::select! {
                sent = making => sent?,
                () = self.held.cancel.cancelled() => return Err(JobError::Stopped),
            };
            self.account.uploaded_bytes += sent;
        }
        self.account.timing.upload_millis += millis(start);
        self.held.set_phase(HeldPhase::Uploading);
        self.free_slot();
        Ok(())
    }

    /// Says that the steps have ended, when nothing but the disk or the network can keep their layers
    /// from being made.
    async fn done(&mut self) -> Result<(), JobError> {
        for ended in &mut self.ended {
            let Ended::Ran(pending) = ended else { continue };
            tokio::select! {
                scanned = &mut pending.scanned => if scanned.is_err() {
                    // The end of its packing, which comes next, says why.
                    return Ok(());
                },
                () = self.held.cancel.cancelled() => return Err(JobError::Stopped),
            }
        }
        let report = DoneReport {
            lease: self.held.lease,
            timing: self.account.timing,
            slices_read: self.account.slices_read.clone(),
            uploaded_bytes: self.account.uploaded_bytes,
        };
        self.reports.send(Report::Done(report, self.log.clone())).await
    }

    /// Where its layers are by now, for others: those of a base that was not stored may have been
    /// moved.
    fn places(&self, mut lowers: Vec<PathBuf>) -> Option<Vec<PathBuf>> {
        if let Some(base) = &self.base {
            let below = self.worker.content.places(base.stage)?;
            lowers.splice(..base.local.chain.lowers.len(), below);
        }
        Some(lowers)
    }

    fn ran(&self) -> impl Iterator<Item = &Pending> {
        self.ended.iter().filter_map(|ended| match ended {
            Ended::Ran(pending) => Some(pending),
            Ended::Found(_) => None,
        })
    }

    /// Waits for the layers, uploads them, and gives them their names on disk.
    async fn layers(&mut self) -> Result<Vec<Layer>, JobError> {
        let mut layers = match &self.base {
            None => self.job.base_layers.clone(),
            Some(base) => {
                let published = self.worker.published.layers(base.stage);
                tokio::select! {
                    layers = published => layers?,
                    () = self.held.cancel.cancelled() => return Err(JobError::Stopped),
                }
            }
        };
        // Where each of them is: the lower directories stand in the order of the layers.
        let (mut stored, mut failed) = (Vec::new(), None);
        for ended in std::mem::take(&mut self.ended) {
            let mut pending = match ended {
                Ended::Found(layer) => {
                    layers.push(layer);
                    continue;
                }
                Ended::Ran(pending) => pending,
            };
            match self.stored(&mut pending).await {
                Ok((packed, layer)) => {
                    stored.push((layers.len(), pending, packed));
                    layers.push(layer);
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        // Not before all are packed: packing a layer looks at those below it where they were.
        let mut lowers = self.lowers.clone();
        for (position, pending, packed) in &stored {
            let place = self.name_layer(pending, packed)?;
            if let Some(lower) = lowers.get_mut(*position) {
                *lower = place;
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if self.unfetched.is_empty()
            && let Some(lowers) = self.places(lowers)
        {
            self.worker.content.remember_chain(self.held.lease.stage, lowers, Vec::new());
        }
        if let Some(publish) = self.publish.take() {
            publish.send_replace(Some(layers.clone()));
        }
        Ok(layers)
    }

    /// Waits until the layer of a step is packed and sent, and reports it.
    async fn stored(&mut self, pending: &mut Pending) -> Result<(PackedLayer, Layer), JobError> {
        let sent = tokio::select! {
            sent = &mut pending.sending => {
                sent?.map_err(|error| self.place_step(error, pending.number))?
            }
            () = self.held.cancel.cancelled() => return Err(JobError::Stopped),
        };
        let SentLayer { packed, snapshot_millis, upload_millis, sent_bytes } = sent;
        self.account.timing.snapshot_millis += snapshot_millis;
        self.account.timing.upload_millis += upload_millis;
        self.account.uploaded_bytes += sent_bytes;
        let made = farm_layer(&packed);
        let timing = TimingView { snapshot_millis, upload_millis, ..pending.timing };
        self.report(pending.number, StepState::Stored, timing, Some(made.clone())).await?;
        Ok((packed, made))
    }

    /// After a failure: the layers of the steps before it are worth keeping, so that the next build
    /// goes on there.
    async fn keep_what_is_done(&mut self) {
        let keeping = async {
            // Without a step that went well there is nothing, perhaps not even a base.
            if !self.held.cancel.is_cancelled() && self.ran().next().is_some() {
                self.layers().await?;
            }
            self.reports.flush().await
        };
        if let Ok(Err(JobError::Failed { failure, .. })) =
            tokio::time::timeout(KEEP_LIMIT, keeping).await
        {
            tracing::info!(%failure, "layers of a failed stage were not kept");
        }
    }

    /// Says where in the Dockerfile the failure of a step belongs.
    fn place_step(&self, error: JobError, number: u32) -> JobError {
        match self.job.stage.steps.iter().find(|step| step.number == number) {
            Some(step) => place(error, step),
            None => error,
        }
    }

    fn name_layer(&self, pending: &Pending, packed: &PackedLayer) -> Result<PathBuf, JobError> {
        let content = &self.worker.content;
        content.commit_blob(&pending.blob, &packed.blob)?;
        let bytes = packed.uncompressed_bytes;
        let pin = content.commit_layer(&pending.upper, &packed.diff_id, bytes)?;
        let own = Right::of_project(self.project);
        for digest in [&packed.blob, &packed.diff_id] {
            content.note_had(digest, &own);
        }
        let place = pin.path();
        // Who reads it in place still does.
        pending.directory.keep(pin);
        Ok(place)
    }

    pub(super) async fn report(
        &mut self,
        number: u32,
        state: StepState,
        timing: TimingView,
        layer: Option<Layer>,
    ) -> Result<(), JobError> {
        let report = StepReport { number, state, timing, layer };
        self.reports.send(Report::Step(report)).await
    }
}

/// Packs a layer, which others may do at the same time, and sends it.
async fn pack_and_send(
    worker: Arc<Worker>,
    lease: Lease,
    directory: Arc<Scratch>,
    (lowers, form): (Vec<PathBuf>, Compression),
    scanned: oneshot::Sender<()>,
) -> Result<SentLayer, JobError> {
    let start = Instant::now();
    let blob = directory.path().join(BLOB);
    // The directory has to stay until the packing, which nobody can interrupt, has ended.
    let packing = move || {
        let (upper, out) = (directory.path().join(UPPER), directory.path().join(BLOB));
        layer::pack_scanned(&upper, &lowers, &out, form, || {
            // The stage may have ended meanwhile.
            let _ = scanned.send(());
        })
    };
    let packed = tokio::task::spawn_blocking(packing).await?;
    let packed = packed.map_err(|error| pack_failure(&error))?;
    let snapshot_millis = millis(start);
    let start = Instant::now();
    let (kind, digest) = (ObjectKind::Blob, packed.blob);
    let object = ObjectName { kind, digest, size_bytes: packed.size_bytes };
    let sent_bytes = upload(&worker.client, lease, vec![(object, blob)]).await?;
    Ok(SentLayer { packed, snapshot_millis, upload_millis: millis(start), sent_bytes })
}

/// Whether a step's layer does not depend on the layers below it: `--link`.
pub(super) fn stands_alone(step: &Step) -> bool {
    matches!(&step.op, Op::Copy(op) if op.link)
}

fn farm_layer(packed: &PackedLayer) -> Layer {
    Layer {
        diff_id: packed.diff_id,
        blob: packed.blob,
        size_bytes: packed.size_bytes,
        media_type: packed.media_type.to_owned(),
        origin: LayerOrigin::Farm,
    }
}
