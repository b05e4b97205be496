//! What workers are told of the stages that they are given.

use std::collections::{BTreeMap, HashMap};

use api::Secret;
use api::worker::v1::{Assignment, ExportImage, ExportJob, Job, SliceInput, StageJob};
use common::image::Layer;
use common::stage::StageKind;
use common::{BuildId, Digest, Failure, FailureClass, Lease, ProjectName, StageId};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize as _;
use store::{CachedSlice, StageJobRow};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::documents::{ExportDocument, LastKeys, StageDocument};
use super::{App, AppError};

/// Job messages that are made at the same time.
pub(super) const BESIDE: usize = 8;

/// When layers were made, by project and key.
pub(super) type Ages = HashMap<(ProjectName, Digest), OffsetDateTime>;

impl App {
    /// The job messages of leases. One that cannot be made is left out, and its build fails.
    pub(super) async fn assignments(
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
        let jobs = leases.into_iter().filter_map(|lease| Some((lease, rows.remove(&lease.stage)?)));
        self.assignments_of(jobs.collect()).await
    }

    /// The same of what has been read already.
    pub(crate) async fn assignments_of(
        &self,
        jobs: Vec<(Lease, StageJobRow)>,
    ) -> Result<Vec<Assignment>, AppError> {
        let ages = self.ages(jobs.iter().map(|(_, row)| row)).await?;
        let ages = &ages;
        let making: Vec<_> =
            jobs.into_iter().map(|(lease, row)| self.assignment(lease, row, ages)).collect();
        let made = stream::iter(making).buffered(BESIDE).try_collect::<Vec<_>>().await?;
        Ok(made.into_iter().flatten().collect())
    }

    async fn assignment(
        &self,
        lease: Lease,
        row: StageJobRow,
        ages: &Ages,
    ) -> Result<Option<Assignment>, AppError> {
        let head = (row.build, row.project.clone(), row.label.clone(), row.dockerfile.clone());
        let job = match row.kind {
            StageKind::Stage => self.stage_job(row).await?,
            StageKind::Export => export_job(row, ages)?.map(|job| Job::Export(Box::new(job))),
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
            trust: document.trust,
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

    /// When the layers were made whose age is that of an image among these exports.
    pub(super) async fn ages(
        &self,
        rows: impl Iterator<Item = &StageJobRow>,
    ) -> Result<Ages, AppError> {
        let mut keys = Vec::new();
        for row in rows.filter(|row| row.kind == StageKind::Export) {
            let export = LastKeys::deserialize(&row.plan)?;
            if export.source_date_epoch.is_none() {
                let known = export.images.into_iter().filter_map(|image| image.last_key);
                keys.extend(known.map(|key| (row.project.clone(), key)));
            }
        }
        Ok(self.store.layers_created_at(&keys).await?)
    }
}

/// The images of an export, with their layers and times; none while a layer is not known.
pub(super) fn export_job(row: StageJobRow, ages: &Ages) -> Result<Option<ExportJob>, AppError> {
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
            (None, Some(key)) => ages.get(&(row.project.clone(), key)).copied(),
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

pub(super) fn slice_input(stage: StageId, slice: CachedSlice) -> SliceInput {
    SliceInput {
        stage,
        selector: slice.selector,
        manifest: slice.manifest,
        files: slice.files,
        content_bytes: slice.content_bytes,
        inline_manifest: slice.inline_manifest,
    }
}
