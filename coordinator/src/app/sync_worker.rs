//! The state exchange with a worker.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use api::Secret;
use api::worker::v1::{
    Abandon, AbandonReason, Assignment, ExportImage, ExportJob, HeldPhase, InputReady, Job,
    SliceInput, StageJob, SyncRequest, SyncResponse,
};
use common::image::Layer;
use common::stage::StageKind;
use common::{BuildId, Failure, FailureClass, Lease, StageId};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use store::{
    CachedSlice, Exchange, Exchanged, Held, NeedsRow, OfferRow, StageJobRow, Store, StoreError,
    SyncState,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::documents::{ExportDocument, StageDocument};
use super::{App, AppError};
use crate::dispatch::{Rung, Seat};
use crate::gather::Asked;
use crate::scheduler::{Needs, Offer};

/// Longest time that an answer is held back.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// Shortest time, so that there is a look at what is ready.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// Job messages that are made at the same time.
pub(super) const BESIDE: usize = 8;

impl App {
    /// Takes a worker's state and answers with the state it should have, at once when there is
    /// something to say.
    pub(crate) async fn sync_worker(
        &self,
        request: &SyncRequest,
    ) -> Result<SyncResponse, AppError> {
        let wait = Duration::from_millis(request.wait_millis).min(MAX_WAIT);
        let until = Instant::now() + wait;
        loop {
            self.seats.leave(request.worker).await;
            let (mut response, seat) = self.exchange(request).await?;
            let has_news = !response.assignments.is_empty()
                || !response.abandon.is_empty()
                || !response.inputs.is_empty();
            if has_news || (request.draining && wait.is_zero()) {
                return Ok(response);
            }
            // Whoever will not wait is told what is ready now.
            let rings = self.seats.take(seat);
            let rest = until.saturating_duration_since(Instant::now()).max(SHORTEST_WAIT);
            match tokio::time::timeout(rest, rings).await {
                Ok(Ok(Rung::Has(assignments))) => {
                    response.assignments = assignments;
                    return Ok(response);
                }
                Ok(Ok(Rung::News)) => {}
                // Nothing has happened, or the worker has called again.
                Ok(Err(_)) | Err(_) => return Ok(response),
            }
        }
    }

    async fn exchange(&self, request: &SyncRequest) -> Result<(SyncResponse, Seat), AppError> {
        let held: Vec<Held> = request
            .held
            .iter()
            .map(|held| Held {
                lease: held.lease,
                parked: matches!(held.phase, HeldPhase::Parked { .. }),
                wishes: match &held.phase {
                    HeldPhase::Parked { waiting_for } => {
                        waiting_for.iter().map(|wish| (wish.stage, wish.selector.clone())).collect()
                    }
                    HeldPhase::Running | HeldPhase::Uploading => Vec::new(),
                },
            })
            .collect();
        let wishes = held.iter().flat_map(|held| &held.wishes);
        let wishes =
            wishes.map(|(stage, selector)| (*stage, selector.digest().to_string())).collect();
        let exchange = Exchange {
            worker: request.worker,
            session: request.session,
            slots: request.slots,
            free_slots: request.free_slots,
            draining: request.draining,
            held,
        };
        let store = self.store.clone();
        let answer = self.exchanges.ask(exchange, move |asked| exchange_all(store.clone(), asked));
        let Exchanged { state, asking } = answer.await.ok_or(StoreError::NotFound("answer"))??;
        let leases = state.undelivered.clone();
        let slots = request.free_slots.saturating_sub(u32::try_from(leases.len()).unwrap_or(0));
        let free = (slots > 0 && !request.draining).then_some((slots, asking));
        let seat = Seat { worker: request.worker, session: request.session, free, wishes };
        let response = SyncResponse {
            assignments: self.assignments(leases).await?,
            abandon: abandons(&state),
            inputs: inputs(state.inputs),
            drain: state.drain,
            lost_after_millis: u64::try_from(self.lost_after.as_millis()).unwrap_or(u64::MAX),
        };
        Ok((response, seat))
    }

    /// The job messages of leases. One that cannot be made is left out, and its build fails.
    pub(crate) async fn assignments(
        &self,
        leases: Vec<Lease>,
    ) -> Result<Vec<Assignment>, AppError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let stages: Vec<StageId> = leases.iter().map(|lease| lease.stage).collect();
        let rows = self.store.stage_jobs(&stages).await?;
        let mut rows: HashMap<StageId, StageJobRow> =
            rows.into_iter().map(|row| (row.id, row)).collect();
        let found = leases.into_iter().filter_map(|lease| {
            let row = rows.remove(&lease.stage)?;
            Some(self.assignment(lease, row))
        });
        let found: Vec<_> = found.collect();
        let made = stream::iter(found).buffered(BESIDE).try_collect::<Vec<_>>().await?;
        Ok(made.into_iter().flatten().collect())
    }

    async fn assignment(
        &self,
        lease: Lease,
        row: StageJobRow,
    ) -> Result<Option<Assignment>, AppError> {
        let head = (row.build, row.project.clone(), row.label.clone(), row.dockerfile.clone());
        let job = match row.kind {
            StageKind::Stage => self.stage_job(row).await?,
            StageKind::Export => self.export_job(row).await?.map(|job| Job::Export(Box::new(job))),
        };
        let Some(job) = job else {
            let message = "the layers that the stage starts from are not known";
            let failure = Failure::new(FailureClass::Infrastructure, "base-unknown", message);
            self.store.fail_stage(lease, &failure).await?;
            return Ok(None);
        };
        let (build, project, label, dockerfile) = head;
        Ok(Some(Assignment { lease, build, project, label, dockerfile, job }))
    }

    async fn stage_job(&self, row: StageJobRow) -> Result<Option<Job>, AppError> {
        let document: StageDocument = serde_json::from_value(row.plan)?;
        let base_is_new = row.base_layers.is_none();
        let producer = row.producer_layers.into_iter().next().map(|(_, layers)| layers);
        let base_layers = row.base_layers.or(producer);
        let unstored_base = row.unstored_base.filter(|_| base_layers.is_none());
        if base_layers.is_none() && unstored_base.is_none() {
            return Ok(None);
        }
        let inputs =
            row.slices.into_iter().map(|(stage, slice)| slice_input(stage, slice)).collect();
        let secrets = self.secrets(row.build, &document.secrets).await?;
        Ok(Some(Job::Stage(Box::new(StageJob {
            contexts: document.contexts,
            secrets,
            agents: document.agents,
            looks_up: document.looks_up,
            base_is_new,
            fresh_caches: document.fresh_caches,
            compression: document.compression,
            stage: document.stage,
            stage_ids: document.stage_ids,
            images: document.images,
            base_layers: base_layers.unwrap_or_default(),
            unstored_base,
            first_step: row.first_step,
            context: row.context,
            make_slices: row.make_slices,
            inputs,
        }))))
    }

    /// Opens the secrets that a stage may see. One that cannot be opened is as good as absent.
    pub(super) async fn secrets(
        &self,
        build: BuildId,
        names: &[String],
    ) -> Result<BTreeMap<String, Secret>, AppError> {
        let (Some(vault), false) = (&self.vault, names.is_empty()) else {
            return Ok(BTreeMap::new());
        };
        let mut opened = BTreeMap::new();
        for (name, sealed) in self.store.build_secrets(build).await? {
            if !names.contains(&name) {
                continue;
            }
            match vault.open(build, &name, &sealed) {
                Some(value) => {
                    opened.insert(name, Secret::new(&value));
                }
                None => tracing::warn!(build.id = %build, name, "a secret cannot be opened"),
            }
        }
        Ok(opened)
    }

    /// The images of an export, with their layers and times; none while a layer is not known.
    pub(super) async fn export_job(&self, row: StageJobRow) -> Result<Option<ExportJob>, AppError> {
        let export: ExportDocument = serde_json::from_value(row.plan)?;
        let made: BTreeMap<StageId, Vec<Layer>> = row.producer_layers.into_iter().collect();
        let mut images = Vec::new();
        for image in export.images {
            let Some(layers) = image.layers.or_else(|| made.get(&image.stage).cloned()) else {
                return Ok(None);
            };
            let mut document = image.document;
            document.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
            // The age of the image is that of its last layer, so that the same layers make the same
            // image, whenever it is exported.
            let age = match (export.source_date_epoch, image.last_key) {
                (Some(seconds), _) => OffsetDateTime::from_unix_timestamp(seconds).ok(),
                (None, Some(key)) => self.store.layer_created_at(&row.project, &key).await?,
                (None, None) => None,
            };
            let created = age
                .and_then(|time| time.replace_nanosecond(0).ok())
                .and_then(|time| time.format(&Rfc3339).ok());
            for entry in document.history.iter_mut().skip(image.base_history) {
                entry.created.clone_from(&created);
            }
            document.created = created;
            images.push(ExportImage { layers, document });
        }
        let (source_date_epoch, targets) = (export.source_date_epoch, export.targets);
        Ok(Some(ExportJob { images, source_date_epoch, targets }))
    }
}

/// Answers many workers at once; whoever needs more than a look gets a task of its own.
async fn exchange_all(store: Store, asked: Vec<Asked<Exchange, store::Result<Exchanged>>>) {
    let all: Vec<Exchange> = asked.iter().map(|(exchange, _)| exchange.clone()).collect();
    let mut found = store.exchange(&all).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "an exchange with many workers failed: each has its own now");
        HashMap::new()
    });
    for (exchange, answer) in asked {
        if let Some(exchanged) = found.remove(&exchange.worker) {
            // Whoever has gone calls again.
            let _ = answer.send(Ok(exchanged));
        } else {
            let store = store.clone();
            tokio::spawn(async move { answer.send(store.exchange_alone(&exchange).await) });
        }
    }
}

/// What a stage needs.
pub(crate) fn needs(row: NeedsRow) -> Needs {
    let NeedsRow { platform, labels, cpu_millis, memory_bytes } = row;
    Needs { platform, labels, cpu_millis, memory_bytes }
}

/// What a worker has.
pub(crate) fn offer(row: OfferRow) -> Offer {
    let OfferRow { platforms, labels, cpu_millis, memory_bytes } = row;
    Offer { platforms, labels, cpu_millis, memory_bytes }
}

fn slice_input(stage: StageId, slice: CachedSlice) -> SliceInput {
    SliceInput {
        stage,
        selector: slice.selector,
        manifest: slice.manifest,
        files: slice.files,
        content_bytes: slice.content_bytes,
        inline_manifest: slice.inline_manifest,
    }
}

fn abandons(state: &SyncState) -> Vec<Abandon> {
    let stale = state
        .stale
        .iter()
        .map(|lease| Abandon { lease: *lease, reason: AbandonReason::Superseded });
    let dropped = state.dropped.iter().map(|(lease, reason)| Abandon {
        lease: *lease,
        reason: match reason.as_str() {
            "cancelled" => AbandonReason::Cancelled,
            _ => AbandonReason::BuildFailed,
        },
    });
    stale.chain(dropped).collect()
}

fn inputs(found: Vec<(Lease, StageId, CachedSlice)>) -> Vec<InputReady> {
    let mut ready: Vec<InputReady> = Vec::new();
    for (lease, stage, slice) in found {
        let input = slice_input(stage, slice);
        match ready.iter_mut().find(|entry| entry.lease == lease) {
            Some(entry) => entry.slices.push(input),
            None => ready.push(InputReady { lease, slices: vec![input] }),
        }
    }
    ready
}
