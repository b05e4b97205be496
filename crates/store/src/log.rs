//! Where the chunks of logs are.

use common::{BuildId, Epoch, Lease, ProjectName, StageId};

use crate::{Result, Store, StoreError, int};

/// A stored chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRow {
    /// The stage that it is shown for.
    pub stage: StageId,
    /// The stage that wrote it: another one where that ran in its place.
    pub holder: StageId,
    /// The attempt.
    pub epoch: Epoch,
    /// Number of the chunk.
    pub chunk: u32,
    /// Name of the object.
    pub object: String,
}

impl Store {
    /// The project and builds of a lease that is, or was the last, live one: its own build first, then
    /// those that share its run.
    pub async fn log_scope(&self, lease: Lease) -> Result<(ProjectName, Vec<BuildId>)> {
        let row = sqlx::query!(
            r#"select project, build_id, array(select distinct f.build_id from stage f
                                             where f.attached_to = s.id) as "others!"
               from stage s
               where id = $1 and epoch = $2
                 and not exists (select 1 from build b
                                 where b.id = s.build_id and b.purged_at is not null)"#,
            lease.stage.0,
            lease.epoch.0,
        )
        .fetch_optional(&self.pool)
        .await?
        .ok_or(StoreError::StaleLease)?;
        let project = row.project.parse().map_err(|_| StoreError::WrongState("project name"))?;
        let others = row.others.into_iter().filter(|build| *build != row.build_id);
        Ok((project, std::iter::once(row.build_id).chain(others).map(BuildId).collect()))
    }

    /// Which stages of a build others run, or ran, in the place of: (the other, its own).
    pub async fn attachments(&self, build: BuildId) -> Result<Vec<(StageId, StageId)>> {
        let rows = sqlx::query!(
            r#"select id, attached_to as "leader!" from stage
               where build_id = $1 and attached_to is not null"#,
            build.0,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (StageId(row.leader), StageId(row.id))).collect())
    }

    /// Records a chunk for the holder of a lease that is, or was the last, live one. False when it
    /// was recorded before.
    pub async fn add_log_chunk(
        &self,
        lease: Lease,
        chunk: u32,
        object: &str,
        lines: usize,
        bytes: usize,
    ) -> Result<bool> {
        let done = sqlx::query!(
            r#"insert into log_chunk (stage_id, epoch, chunk, object, lines, bytes)
               select s.id, s.epoch, $3, $4, $5, $6
               from stage s join build b on b.id = s.build_id
               where s.id = $1 and s.epoch = $2 and b.purged_at is null
               on conflict do nothing"#,
            lease.stage.0,
            lease.epoch.0,
            int(chunk),
            object,
            int(lines),
            int(bytes),
        )
        .execute(&self.pool)
        .await?;
        if done.rows_affected() == 1 {
            return Ok(true);
        }
        let live = sqlx::query_scalar!(
            r#"select s.id from stage s join build b on b.id = s.build_id
               where s.id = $1 and s.epoch = $2 and b.purged_at is null"#,
            lease.stage.0,
            lease.epoch.0,
        )
        .fetch_optional(&self.pool)
        .await?;
        live.map(|_| false).ok_or(StoreError::StaleLease)
    }

    /// The chunks of a build, attempts in order, optionally of one stage; those of the stages that ran
    /// in the place of its own, too.
    pub async fn log_chunks(
        &self,
        build: BuildId,
        stage: Option<StageId>,
    ) -> Result<Vec<ChunkRow>> {
        let rows = sqlx::query!(
            r#"select s.id as "stage_id!", l.epoch, l.chunk, l.object, l.stage_id as "holder!"
               from stage s join log_chunk l on l.stage_id in (s.id, s.attached_to)
               where s.build_id = $1 and ($2::uuid is null or s.id = $2)
               order by s.position, l.stage_id <> s.id desc, l.epoch, l.chunk"#,
            build.0,
            stage.map(|stage| stage.0),
        )
        .fetch_all(&self.pool)
        .await?;
        let chunks = rows.into_iter().map(|row| ChunkRow {
            stage: StageId(row.stage_id),
            holder: StageId(row.holder),
            epoch: Epoch(row.epoch),
            chunk: u32::try_from(row.chunk).unwrap_or(0),
            object: row.object,
        });
        Ok(chunks.collect())
    }
}
