//! A stage: base layers, steps, slices, layers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use api::public::v1::{LogStream, TimingView};
use api::worker::v1::{
    HeldPhase, ObjectKind, ObjectName, StageJob, StageOutcome, StepReport, StepState,
};
use common::image::{Layer, LayerOrigin};
use common::plan::{Op, Step};
use common::{Failure, FailureClass, ProjectName};
use layer::{PackError, PackedLayer};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::failure::JobError;
use super::image::compression;
use super::job::{Account, persist};
use super::slices;
use super::step::run_step;
use crate::content::ContentStore;
use crate::dispatch::{Held, Worker};
use crate::logs::LogWriter;
use crate::transfer::{ensure_layers, upload};

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
    pending: Vec<Pending>,
}

/// A step that has ended and whose layer is being packed.
struct Pending {
    number: u32,
    timing: TimingView,
    upper: PathBuf,
    blob: PathBuf,
    packing: JoinHandle<Result<PackedLayer, PackError>>,
    /// Holds both until they get their names.
    _directory: tempfile::TempDir,
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
        pending: Vec::new(),
    };
    run.take_slot().await?;
    run.base().await?;
    let first = run.job.first_step;
    let steps: Vec<Step> =
        run.job.stage.steps.iter().filter(|step| step.number >= first).cloned().collect();
    for step in &steps {
        run.step(step).await.map_err(|error| place(error, step))?;
    }
    run.slices().await?;
    let layers = run.layers().await?;
    Ok(StageOutcome::Succeeded { layers, exports: Vec::new() })
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

    async fn base(&mut self) -> Result<(), JobError> {
        let start = Instant::now();
        let fetch = ensure_layers(self.worker, self.held.lease, &self.job.base_layers);
        self.lowers = tokio::select! {
            lowers = fetch => lowers?,
            () = self.held.cancel.cancelled() => return Err(JobError::Stopped),
        };
        self.account.timing.fetch_millis += millis(start);
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<(), JobError> {
        let mut timing = TimingView::default();
        self.report(step.number, StepState::Running, timing, None).await?;
        self.log.line(step.number, LogStream::System, step.display.clone()).await;
        let directory = self.worker.content.scratch()?;
        let upper = directory.path().join("upper");
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
        let from = upper.clone();
        let blob = directory.path().join("blob");
        let out = blob.clone();
        let form = compression(self.job.compression);
        let packing =
            tokio::task::spawn_blocking(move || layer::pack_upper(&from, &lowers, &out, form));
        self.lowers.push(upper.clone());
        let number = step.number;
        self.report(number, StepState::Done, timing, None).await?;
        self.pending.push(Pending { number, timing, upper, blob, packing, _directory: directory });
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
        let stage = self.held.lease.stage;
        self.worker.content.remember_chain(stage, self.lowers.clone());
        let start = Instant::now();
        for selector in self.job.make_slices.clone() {
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

    /// Waits for the layers, uploads them, and gives them their names on disk.
    async fn layers(&mut self) -> Result<Vec<Layer>, JobError> {
        let mut layers = self.job.base_layers.clone();
        let mut lowers = self.lowers[..self.job.base_layers.len()].to_vec();
        for pending in std::mem::take(&mut self.pending) {
            let start = Instant::now();
            let packed = pending.packing.await?.map_err(|error| {
                Failure::new(FailureClass::Infrastructure, "pack-failed", error.to_string())
            })?;
            let snapshot_millis = millis(start);
            self.account.timing.snapshot_millis += snapshot_millis;
            let made = farm_layer(&packed);
            let start = Instant::now();
            let (kind, digest) = (ObjectKind::Blob, packed.blob);
            let object = ObjectName { kind, digest, size_bytes: packed.size_bytes };
            let sending =
                upload(&self.worker.client, self.held.lease, vec![(object, pending.blob.clone())]);
            let sent = tokio::select! {
                sent = sending => sent?,
                () = self.held.cancel.cancelled() => return Err(JobError::Stopped),
            };
            let upload_millis = millis(start);
            self.account.timing.upload_millis += upload_millis;
            self.account.uploaded_bytes += sent;
            let timing = TimingView { snapshot_millis, upload_millis, ..pending.timing };
            self.report(pending.number, StepState::Stored, timing, Some(made.clone())).await?;
            let place = self.name_layer(&pending.upper, &pending.blob, &packed)?;
            lowers.push(place);
            layers.push(made);
        }
        self.worker.content.remember_chain(self.held.lease.stage, lowers);
        Ok(layers)
    }

    fn name_layer(
        &self,
        upper: &std::path::Path,
        blob: &std::path::Path,
        packed: &PackedLayer,
    ) -> Result<PathBuf, JobError> {
        let content = &self.worker.content;
        ContentStore::commit(blob, &content.blob(&packed.blob))?;
        let place = content.layer(&packed.diff_id);
        ContentStore::commit(upper, &place)?;
        content.layer_moved(upper, &place);
        Ok(place)
    }

    pub(super) async fn report(
        &self,
        number: u32,
        state: StepState,
        timing: TimingView,
        layer: Option<Layer>,
    ) -> Result<(), JobError> {
        let report = StepReport { lease: self.held.lease, number, state, timing, layer };
        persist(self.held, || self.worker.client.step(&report)).await
    }
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
