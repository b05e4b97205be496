//! What workers report of stages they hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::Problem;
use api::public::v1::TimingView;
use api::worker::v1::{
    DoneReport, LogChunk, ResultReport, SliceReport, SliceUse, StageOutcome, StepReport, StepState,
    StepsReport,
};
use blobstore::names;
use common::image::Layer;
use common::{BuildId, FailureClass, Lease, ProjectName};
use logbus::Message;
use store::{
    CachedSlice, Finished, Finishes, NewExport, ObjectKey, ObjectRow, Outcome, QuarantineRule,
    Resulted, Spent, StepNews, StoreError,
};

use super::documents::{ExportDocument, StageDocument};
use super::{App, AppError};
use crate::gather::Asked;

/// Longest text of one chunk in bytes.
const MAX_CHUNK_BYTES: usize = 512 << 10;

/// Most steps of one report.
const MAX_STEPS: usize = 1_000;

/// Most packs of one slice.
const MAX_PACKS: usize = 20_000;

/// When a worker is left alone, and for how long.
const QUARANTINE: QuarantineRule = QuarantineRule { failures: 3, secs: 300.0 };

impl App {
    /// Steps began, ended, or their layers are stored.
    pub(crate) async fn report_steps(&self, report: &StepsReport) -> Result<(), AppError> {
        let mut numbers: Vec<u32> = report.steps.iter().map(|step| step.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        if numbers.len() != report.steps.len() || numbers.len() > MAX_STEPS {
            let detail = format!("steps are reported once each, {MAX_STEPS} at most");
            return Err(Problem::new(400, "bad-steps", detail).into());
        }
        let steps = report.steps.iter().map(step_news).collect::<serde_json::Result<Vec<_>>>()?;
        let reported = self.store.report_steps(report.lease, &steps).await;
        self.tell(&self.count_stale("step", reported)?);
        Ok(())
    }

    /// A slice is stored.
    pub(crate) async fn report_slice(&self, report: &SliceReport) -> Result<(), AppError> {
        if report.packs.len() > MAX_PACKS
            || (report.packs.is_empty() && report.stored_bytes > report.manifest_bytes)
        {
            // Packs that nobody knows of would not be kept.
            let detail = format!("a slice names its packs, {MAX_PACKS} at most");
            return Err(Problem::new(400, "bad-slice", detail).into());
        }
        let (_, plan) = self.store.stage_plan(report.lease.stage).await?;
        let document: StageDocument = serde_json::from_value(plan)?;
        let row =
            |kind, digest, size_bytes| ObjectRow { key: ObjectKey { kind, digest }, size_bytes };
        let mut objects = vec![row("manifest", report.manifest, report.manifest_bytes)];
        objects.extend(report.packs.iter().map(|pack| row("pack", pack.digest, pack.size_bytes)));
        let slice = CachedSlice {
            selector: report.selector.clone(),
            manifest: report.manifest,
            inline_manifest: report.inline_manifest.clone().filter(|text| text.len() < 128 << 10),
            files: report.files,
            content_bytes: report.content_bytes,
            stored_bytes: report.stored_bytes,
            content: report.content,
        };
        let reported =
            self.store.report_slice(report.lease, document.stage.key, &slice, &objects).await;
        let builds = self.count_stale("slice", reported)?;
        self.bus.send(Message::Workers);
        self.tell(&builds);
        Ok(())
    }

    /// The steps of a stage have ended; its layers are on their way.
    pub(crate) async fn report_done(&self, report: &DoneReport) -> Result<(), AppError> {
        let spent = spent(&report.timing, &report.slices_read, report.uploaded_bytes)?;
        let done = self.store.stage_done(report.lease, &spent).await;
        self.bus.send(Message::Workers);
        self.tell(&self.count_stale("done", done)?);
        Ok(())
    }

    /// Whoever looks at these builds sees them anew.
    pub(crate) fn tell(&self, builds: &[BuildId]) {
        for build in builds {
            self.bus.send(Message::Build(*build));
        }
    }

    /// A stage has ended.
    pub(crate) async fn report_result(
        self: &Arc<Self>,
        report: &ResultReport,
    ) -> Result<(), AppError> {
        let finished = Finished {
            lease: report.lease,
            outcome: self.outcome(report).await?,
            spent: spent(&report.timing, &report.slices_read, report.uploaded_bytes)?,
        };
        let (name, stored) = match &finished.outcome {
            Outcome::Succeeded { .. } => {
                let app = Arc::clone(self);
                let work = move |asked| Arc::clone(&app).finish_all(asked);
                let stored = self.results.ask(finished, work).await;
                ("succeeded", stored.unwrap_or(Err(StoreError::NotFound("answer"))))
            }
            Outcome::Failed { failure, .. } => {
                (failure.class.as_str(), self.store.finish_stage(&finished).await)
            }
            Outcome::HandedBack => ("handed_back", self.store.finish_stage(&finished).await),
        };
        let resulted = self.count_stale("result", stored)?;
        if name != "succeeded" {
            self.bus.send(Message::Workers);
            self.tell(resulted.builds());
        }
        if let Resulted::Recorded(_) = resulted {
            self.metrics.results_total.with_label_values(&[name]).inc();
            // A hint for the scheduler: the result counts without it.
            if let Err(error) = self.note_fault(report).await {
                tracing::warn!(%error, "what a failure says of its worker was not stored");
            }
        }
        Ok(())
    }

    /// Stores successes together, or each alone where that fails; then what needs no worker is done,
    /// and what they teach is stored.
    async fn finish_all(self: Arc<Self>, asked: Vec<Asked<Finished, store::Result<Resulted>>>) {
        let (all, answers): (Vec<Finished>, Vec<_>) = asked.into_iter().unzip();
        let mut done = match self.store.finish_stages(&all).await {
            Err(error) if all.len() > 1 => {
                tracing::debug!(%error, "some results failed together: each alone now");
                let mut done = Finishes::default();
                for one in &all {
                    match self.store.finish_stages(std::slice::from_ref(one)).await {
                        Ok(one) => {
                            done.results.extend(one.results);
                            done.exports.extend(one.exports);
                        }
                        Err(error) => done.results.push(Err(error)),
                    }
                }
                done
            }
            Err(error) => Finishes { results: vec![Err(error)], exports: Vec::new() },
            Ok(done) => done,
        };
        // Workers have not been told yet: what needs none is done first.
        if let Err(error) = self.answer_exports(&done.exports).await {
            tracing::warn!(%error, "exports are left to workers");
        }
        let builds = done.results.iter().flatten().flat_map(Resulted::builds);
        let builds: BTreeSet<BuildId> = builds.copied().collect();
        self.bus.send(Message::Workers);
        self.tell(&builds.into_iter().collect::<Vec<_>>());
        let is_new = |result: &store::Result<Resulted>| matches!(result, Ok(Resulted::Recorded(_)));
        let counts: Vec<bool> = done.results.iter().map(is_new).collect();
        for (answer, result) in answers.into_iter().zip(done.results.drain(..)) {
            // Whoever has gone sends it again.
            let _ = answer.send(result);
        }
        let new = all.iter().zip(counts).filter_map(|(one, counts)| counts.then_some(one));
        // Hints for the scheduler: the results count without them.
        if let Err(error) = self.learn(&new.collect::<Vec<_>>()).await {
            tracing::warn!(%error, "what results teach was not stored");
        }
    }

    /// What successes say of the length of stages, of the workers' layers and of their health.
    async fn learn(&self, all: &[&Finished]) -> store::Result<()> {
        if all.is_empty() {
            return Ok(());
        }
        let durations: Vec<_> = all.iter().map(|one| (one.lease.stage, one.spent.millis)).collect();
        let layers: Vec<(Lease, &[Layer])> = all
            .iter()
            .filter_map(|one| match &one.outcome {
                Outcome::Succeeded { layers, .. } => Some((one.lease, layers.as_slice())),
                Outcome::Failed { .. } | Outcome::HandedBack => None,
            })
            .collect();
        let leases: Vec<Lease> = all.iter().map(|one| one.lease).collect();
        tokio::try_join!(
            self.store.remember_durations(&durations),
            self.store.remember_layers(&layers),
            self.store.note_successes(&leases),
        )?;
        Ok(())
    }

    /// What a failure says of its worker.
    async fn note_fault(&self, report: &ResultReport) -> store::Result<()> {
        let StageOutcome::Failed { failure, .. } = &report.outcome else { return Ok(()) };
        if failure.class != FailureClass::Infrastructure {
            return Ok(());
        }
        if let Some(name) = self.store.note_fault(report.lease, failure, QUARANTINE).await? {
            tracing::warn!(worker.name = name, "a worker failed too often: left alone");
        }
        Ok(())
    }

    async fn outcome(&self, report: &ResultReport) -> Result<Outcome, AppError> {
        Ok(match &report.outcome {
            StageOutcome::HandedBack { .. } => Outcome::HandedBack,
            StageOutcome::Failed { failure, step } => Outcome::Failed {
                // The farm's own faults are worth another attempt, elsewhere if possible; so is a
                // registry that could not be reached.
                retry: failure.class == FailureClass::Infrastructure
                    || (failure.class == FailureClass::Registry
                        && failure.code != "registry-denied"),
                failure: failure.clone(),
                step: *step,
            },
            StageOutcome::Succeeded { layers, exports } => {
                let exports = if exports.is_empty() {
                    Vec::new()
                } else {
                    let (_, plan) = self.store.stage_plan(report.lease.stage).await?;
                    let document: ExportDocument = serde_json::from_value(plan)?;
                    let exports = exports.iter().map(|result| new_export(&document, result));
                    exports.collect::<serde_json::Result<_>>()?
                };
                Outcome::Succeeded { layers: layers.clone(), exports }
            }
        })
    }

    /// Lines of a log: to whoever follows at once, then to the object store.
    pub(crate) async fn report_log(&self, chunk: LogChunk) -> Result<(), AppError> {
        let bytes: usize = chunk.lines.iter().map(|line| line.text.len()).sum();
        if bytes > MAX_CHUNK_BYTES {
            let detail = format!("a chunk has more than {MAX_CHUNK_BYTES} bytes of text");
            return Err(Problem::new(413, "log-chunk-too-big", detail).into());
        }
        let (project, builds) = self.log_scope(chunk.lease).await?;
        let object = names::log_chunk(&project, chunk.lease.stage, chunk.lease.epoch, chunk.chunk);
        let text = serde_json::to_vec(&chunk.lines)?;
        let (lease, number, lines) = (chunk.lease, chunk.chunk, chunk.lines.len());
        let chunk = Arc::new(chunk);
        for build in builds {
            self.bus.send(Message::Log(build, Arc::clone(&chunk)));
        }
        self.objects.put(&object, text).await?;
        let added = self.store.add_log_chunk(lease, number, &object, lines, bytes).await;
        if matches!(added, Err(StoreError::StaleLease)) {
            // Its build was purged just now: nobody would ever find it.
            self.objects.delete(&object).await?;
        }
        if self.count_stale("log", added)? {
            self.metrics.log_bytes_total.inc_by(bytes as u64);
        }
        Ok(())
    }

    /// The last lines of a stage arrive with, or just after, its end.
    async fn log_scope(&self, lease: Lease) -> Result<(ProjectName, Vec<BuildId>), AppError> {
        Ok(self.count_stale("log", self.store.log_scope(lease).await)?)
    }

    /// Counts writes that came too late.
    pub(super) fn count_stale<T>(
        &self,
        operation: &str,
        result: store::Result<T>,
    ) -> store::Result<T> {
        if matches!(result, Err(StoreError::StaleLease)) {
            self.metrics.stale_writes_total.with_label_values(&[operation]).inc();
        }
        result
    }
}

fn step_news(report: &StepReport) -> serde_json::Result<StepNews> {
    let state = match report.state {
        StepState::Running => "running",
        StepState::Done | StepState::Stored => "done",
        StepState::Failed => "failed",
    };
    let layer = report.layer.clone().filter(|_| report.state == StepState::Stored);
    let timing = serde_json::to_value(report.timing)?;
    Ok(StepNews { number: report.number, state, timing, layer })
}

fn spent(timing: &TimingView, read: &[SliceUse], sent: u64) -> Result<Spent, AppError> {
    let millis =
        timing.fetch_millis + timing.run_millis + timing.snapshot_millis + timing.upload_millis;
    let (timing, transfers) = (serde_json::to_value(timing)?, serde_json::to_value(read)?);
    Ok(Spent { timing, transfers, uploaded_bytes: sent, millis })
}

pub(super) fn new_export(
    document: &ExportDocument,
    result: &api::worker::v1::ExportResult,
) -> serde_json::Result<NewExport> {
    use api::worker::v1::ExportTarget;
    let (kind, names) = match document.targets.get(result.target as usize) {
        Some(ExportTarget::Push { names, .. }) => ("image", names.clone()),
        Some(ExportTarget::OciArchive { names, .. }) => ("oci", names.clone()),
        Some(ExportTarget::DockerArchive { names, .. }) => ("docker", names.clone()),
        Some(ExportTarget::RootFs { .. }) => ("tar", Vec::new()),
        Some(ExportTarget::DigestOnly { .. }) | None => ("image", Vec::new()),
    };
    let is_left = |name: &String| result.left.iter().any(|left| left.name == *name);
    Ok(NewExport {
        target: result.target,
        kind: kind.to_owned(),
        names: names.into_iter().filter(|name| !is_left(name)).collect(),
        left_names: serde_json::to_value(&result.left)?,
        digest: result.digest,
        config_digest: result.config_digest,
        archive: result.archive.zip(result.archive_bytes),
    })
}
