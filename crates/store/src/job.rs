//! What a worker needs of a stage that it is given.

use std::collections::HashMap;

use common::image::Layer;
use common::plan::SliceSelector;
use common::stage::StageKind;
use common::{BuildId, Digest, ProjectName, StageId};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::cache::CachedSlice;
use crate::{Result, Store, StoreError, read};

/// All that a job message is made of.
#[derive(Debug, Clone)]
pub struct StageJobRow {
    /// The stage.
    pub id: StageId,
    /// Its build.
    pub build: BuildId,
    /// Its project.
    pub project: ProjectName,
    /// Its kind.
    pub kind: StageKind,
    /// Name for people.
    pub label: String,
    /// Name of the Dockerfile.
    pub dockerfile: String,
    /// What it is.
    pub plan: Value,
    /// First step to run.
    pub first_step: u32,
    /// Layers below that step, where they were known when it was planned.
    pub base_layers: Option<Vec<Layer>>,
    /// Layers of the stages that it waits for: that which it starts from, or those that it exports.
    pub producer_layers: Vec<(StageId, Vec<Layer>)>,
    /// The stage that it starts from, where that is done and not stored yet.
    pub unstored_base: Option<StageId>,
    /// Slices to make.
    pub make_slices: Vec<SliceSelector>,
    /// Digest of the context's manifest.
    pub context: Option<Digest>,
    /// Slices of the stages that it reads, with their stage.
    pub slices: Vec<(StageId, CachedSlice)>,
}

/// A row of the view `stage_job`.
pub(crate) struct JobColumns {
    pub(crate) id: Uuid,
    pub(crate) build_id: Uuid,
    pub(crate) project: String,
    pub(crate) kind: String,
    pub(crate) label: String,
    pub(crate) dockerfile: String,
    pub(crate) plan: Value,
    pub(crate) first_step: i32,
    pub(crate) base_layers: Option<Value>,
    pub(crate) make_slices: Value,
    pub(crate) context: Option<String>,
    pub(crate) producers: Option<Value>,
    pub(crate) has_slices: bool,
}

/// A stage that another one starts from, or that an export takes.
#[derive(Deserialize)]
struct Producer {
    stage: StageId,
    /// None while they are not stored.
    layers: Option<Vec<Layer>>,
}

type SlicesOf = HashMap<Uuid, Vec<(StageId, CachedSlice)>>;

impl Store {
    /// All that a worker has to know of a stage.
    pub async fn stage_job(&self, stage: StageId) -> Result<StageJobRow> {
        self.stage_jobs(&[stage]).await?.pop().ok_or(StoreError::NotFound("stage"))
    }

    /// All that workers have to know of some stages, in any order. Those that are gone are left out.
    pub async fn stage_jobs(&self, stages: &[StageId]) -> Result<Vec<StageJobRow>> {
        let stages: Vec<Uuid> = stages.iter().map(|stage| stage.0).collect();
        let rows = sqlx::query_as!(
            JobColumns,
            r#"select id as "id!", build_id as "build_id!", project as "project!",
                      kind as "kind!", label as "label!", dockerfile as "dockerfile!",
                      plan as "plan!", first_step as "first_step!", base_layers,
                      make_slices as "make_slices!", context, producers,
                      has_slices as "has_slices!"
               from stage_job where id = any($1)"#,
            &stages,
        )
        .fetch_all(&self.pool)
        .await?;
        self.jobs(rows).await
    }

    /// Rows with the slices that their stages read.
    pub(crate) async fn jobs(&self, rows: Vec<JobColumns>) -> Result<Vec<StageJobRow>> {
        let readers = rows.iter().filter(|row| row.has_slices).map(|row| row.id);
        let mut slices = self.slices_for(&readers.collect::<Vec<_>>()).await?;
        let jobs = rows.into_iter().map(|row| {
            let slices = slices.remove(&row.id).unwrap_or_default();
            row.with(slices)
        });
        jobs.collect()
    }

    /// The slices that there are of what these read, by consumer.
    async fn slices_for(&self, stages: &[Uuid]) -> Result<SlicesOf> {
        let mut found = SlicesOf::new();
        if stages.is_empty() {
            return Ok(found);
        }
        let rows = sqlx::query!(
            r#"select e.consumer, l.stage_id, l.paths, l.manifest, l.inline_manifest, l.files,
                      l.content_bytes, l.stored_bytes, l.content
               from stage_edge e join stage_slice l on l.stage_id = e.producer
               where e.consumer = any($1)"#,
            stages,
        )
        .fetch_all(&self.pool)
        .await?;
        for slice in rows {
            let Ok(manifest) = slice.manifest.parse() else { continue };
            let paths: Vec<String> = read("slice", slice.paths)?;
            let cached = CachedSlice {
                selector: SliceSelector::new(paths),
                manifest,
                inline_manifest: slice.inline_manifest,
                files: u64::try_from(slice.files).unwrap_or(0),
                content_bytes: u64::try_from(slice.content_bytes).unwrap_or(0),
                stored_bytes: u64::try_from(slice.stored_bytes).unwrap_or(0),
                content: slice.content.and_then(|digest| digest.parse().ok()),
            };
            found.entry(slice.consumer).or_default().push((StageId(slice.stage_id), cached));
        }
        Ok(found)
    }
}

impl JobColumns {
    fn with(self, slices: Vec<(StageId, CachedSlice)>) -> Result<StageJobRow> {
        let producers = self.producers.map(|producers| read("layers", producers)).transpose()?;
        let producers: Vec<Producer> = producers.unwrap_or_default();
        let unstored = producers.iter().find(|producer| producer.layers.is_none());
        Ok(StageJobRow {
            id: StageId(self.id),
            build: BuildId(self.build_id),
            project: self.project.parse().map_err(|_| StoreError::WrongState("project name"))?,
            kind: StageKind::from_name(&self.kind).ok_or(StoreError::WrongState("stage"))?,
            label: self.label,
            dockerfile: self.dockerfile,
            plan: self.plan,
            first_step: u32::try_from(self.first_step).unwrap_or(0),
            base_layers: self.base_layers.map(|layers| read("layers", layers)).transpose()?,
            unstored_base: unstored.map(|producer| producer.stage),
            producer_layers: producers
                .into_iter()
                .filter_map(|producer| Some((producer.stage, producer.layers?)))
                .collect(),
            make_slices: read("slices", self.make_slices)?,
            context: self.context.and_then(|digest| digest.parse().ok()),
            slices,
        })
    }
}
