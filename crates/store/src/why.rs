//! What the steps of a build were keyed by, and those of the build before it.

use common::cache_key::KeyPart;
use common::{BuildId, Digest, ProjectName, StageId};
use serde_json::Value;
use uuid::Uuid;

use crate::{Result, Store, StoreError, read};

/// A stage with what its steps were keyed by.
#[derive(Debug, Clone)]
pub struct KeyedStage {
    /// The stage.
    pub id: StageId,
    /// Its build.
    pub build: BuildId,
    /// Name for people.
    pub label: String,
    /// Its state's name.
    pub state: String,
    /// What its history is kept under.
    pub lineage: Option<String>,
    /// Manifest of the build's context.
    pub context: Option<Digest>,
    /// What it is.
    pub plan: Value,
    /// Its steps.
    pub steps: Vec<KeyedStep>,
}

/// A step with what it was keyed by.
#[derive(Debug, Clone)]
pub struct KeyedStep {
    /// Its number.
    pub number: u32,
    /// The instruction.
    pub display: String,
    /// Its state's name.
    pub state: String,
    /// Its key.
    pub key: Digest,
    /// What the key is made of.
    pub parts: Vec<KeyPart>,
}

impl Store {
    /// The stages of a build, without exports, in order.
    pub async fn keyed_stages(&self, build: BuildId) -> Result<Vec<KeyedStage>> {
        let ids = sqlx::query_scalar!(
            "select id from stage where build_id = $1 and kind = 'stage' order by position",
            build.0,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut stages = Vec::new();
        for id in ids {
            stages.push(self.keyed_stage(id).await?);
        }
        Ok(stages)
    }

    /// The last stage before this one with the same history.
    pub async fn keyed_before(
        &self,
        project: &ProjectName,
        stage: &KeyedStage,
    ) -> Result<Option<KeyedStage>> {
        let Some(lineage) = &stage.lineage else { return Ok(None) };
        let before = sqlx::query_scalar!(
            r#"select d.stage_id from stage_detail d join stage s on s.id = d.stage_id
               where d.lineage = $1 and d.stage_id < $2 and s.project = $3 and s.build_id <> $4
                 and s.state <> 'skipped'
               order by d.stage_id desc limit 1"#,
            lineage,
            stage.id.0,
            project.as_str(),
            stage.build.0,
        )
        .fetch_optional(&self.pool)
        .await?;
        match before {
            Some(id) => Ok(Some(self.keyed_stage(id).await?)),
            None => Ok(None),
        }
    }

    async fn keyed_stage(&self, id: Uuid) -> Result<KeyedStage> {
        let row = sqlx::query!(
            r#"select s.build_id, s.state, d.label, d.lineage, d.plan, b.context
               from stage s join stage_detail d on d.stage_id = s.id join build b on b.id = s.build_id
               where s.id = $1"#,
            id,
        )
        .fetch_optional(&self.pool)
        .await?
        .ok_or(StoreError::NotFound("stage"))?;
        let steps = sqlx::query!(
            r#"select t.number, t.display, coalesce(l.state, t.state) as "state!", t.key, t.key_parts
               from step t join stage s on s.id = t.stage_id
                    left join step l on s.state = 'attached' and l.stage_id = s.attached_to
                                        and l.key = t.key
               where t.stage_id = $1 order by t.number"#,
            id,
        )
        .fetch_all(&self.pool)
        .await?;
        let steps = steps.into_iter().map(|row| {
            Ok(KeyedStep {
                number: u32::try_from(row.number).unwrap_or(0),
                display: row.display,
                state: row.state,
                key: row.key.parse().map_err(|_| StoreError::WrongState("step"))?,
                parts: read("key", row.key_parts)?,
            })
        });
        Ok(KeyedStage {
            id: StageId(id),
            build: BuildId(row.build_id),
            label: row.label,
            state: row.state,
            lineage: row.lineage,
            context: row.context.and_then(|digest| digest.parse().ok()),
            plan: row.plan,
            steps: steps.collect::<Result<_>>()?,
        })
    }
}
