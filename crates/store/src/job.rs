//! What a worker needs of a stage that it is given.

use std::collections::HashMap;

use common::image::Layer;
use common::plan::SliceSelector;
use common::stage::StageKind;
use common::{BuildId, Digest, ProjectName, StageId};
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

impl Store {
    /// All that a worker has to know of a stage.
    pub async fn stage_job(&self, stage: StageId) -> Result<StageJobRow> {
        self.stage_jobs(&[stage]).await?.pop().ok_or(StoreError::NotFound("stage"))
    }

    /// All that workers have to know of some stages, in any order. Those that are gone are left out.
    pub async fn stage_jobs(&self, stages: &[StageId]) -> Result<Vec<StageJobRow>> {
        let stages: Vec<Uuid> = stages.iter().map(|stage| stage.0).collect();
        let rows = sqlx::query!(
            r#"select s.id, s.build_id, s.project, s.kind, d.label, b.dockerfile, d.plan,
                      d.first_step, d.base_layers, d.make_slices, b.context
               from stage s join stage_detail d on d.stage_id = s.id join build b on b.id = s.build_id
               where s.id = any($1)"#,
            &stages,
        )
        .fetch_all(&self.pool);
        let rows = async { Ok(rows.await?) };
        let (rows, mut producers, mut slices) =
            tokio::try_join!(rows, self.producers(&stages), self.slices_for(&stages))?;
        let jobs = rows.into_iter().map(|row| {
            let producers = producers.remove(&row.id).unwrap_or_default();
            let unstored = producers.iter().find(|(_, layers)| layers.is_none());
            Ok(StageJobRow {
                id: StageId(row.id),
                build: BuildId(row.build_id),
                project: row.project.parse().map_err(|_| StoreError::WrongState("project name"))?,
                kind: StageKind::from_name(&row.kind).ok_or(StoreError::WrongState("stage"))?,
                label: row.label,
                dockerfile: row.dockerfile,
                plan: row.plan,
                first_step: u32::try_from(row.first_step).unwrap_or(0),
                base_layers: row.base_layers.map(|layers| read("layers", layers)).transpose()?,
                unstored_base: unstored.map(|(producer, _)| StageId(*producer)),
                producer_layers: producers
                    .into_iter()
                    .filter_map(|(producer, layers)| Some((producer, layers?)))
                    .map(|(producer, layers)| Ok((StageId(producer), read("layers", layers)?)))
                    .collect::<Result<_>>()?,
                make_slices: read("slices", row.make_slices)?,
                context: row.context.and_then(|digest| digest.parse().ok()),
                slices: slices.remove(&row.id).unwrap_or_default(),
            })
        });
        jobs.collect()
    }

    /// The stages that these start from, and their layers, by consumer.
    async fn producers(
        &self,
        stages: &[Uuid],
    ) -> Result<HashMap<Uuid, Vec<(Uuid, Option<Value>)>>> {
        let rows = sqlx::query!(
            r#"select e.consumer, e.producer, d.layers
               from stage_edge e join stage_detail d on d.stage_id = e.producer
               where e.consumer = any($1) and e.is_base"#,
            stages,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut found: HashMap<Uuid, Vec<_>> = HashMap::new();
        for row in rows {
            found.entry(row.consumer).or_default().push((row.producer, row.layers));
        }
        Ok(found)
    }

    /// The slices that there are of what these read, by consumer.
    async fn slices_for(
        &self,
        stages: &[Uuid],
    ) -> Result<HashMap<Uuid, Vec<(StageId, CachedSlice)>>> {
        let rows = sqlx::query!(
            r#"select e.consumer, l.stage_id, l.paths, l.manifest, l.inline_manifest, l.files,
                      l.content_bytes, l.stored_bytes, l.content
               from stage_edge e join stage_slice l on l.stage_id = e.producer
               where e.consumer = any($1)"#,
            stages,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut found: HashMap<Uuid, Vec<_>> = HashMap::new();
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
