//! What time brings about: deadlines, and stages that nobody can run.

use common::outcome::Failure;
use common::{BuildId, Epoch, Lease, StageId};

use crate::build::drop_stages;
use crate::flight::{fail_kept, share_failure};
use crate::ready::{NeedsRow, OfferRow, large, small};
use crate::{Result, Store, bigint, int, write};

/// Rows that one round looks at.
const ROUND: i64 = 100;

/// A stage that nobody can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnplaceableRow {
    /// The stage.
    pub id: StageId,
    /// Why, in words.
    pub reason: String,
}

impl Store {
    /// Builds whose time is up.
    pub async fn overdue_builds(&self) -> Result<Vec<(BuildId, u32)>> {
        let rows = sqlx::query!(
            r#"select id, timeout_secs from build
               where state in ('queued', 'planning', 'running') and deadline is not null
                 and deadline < now() order by deadline limit $1"#,
            ROUND,
        )
        .fetch_all(&self.pool)
        .await?;
        let secs = |secs: Option<i32>| small(secs.unwrap_or(0));
        Ok(rows.into_iter().map(|row| (BuildId(row.id), secs(row.timeout_secs))).collect())
    }

    /// Held stages whose time is up.
    pub async fn overdue_stages(&self) -> Result<Vec<(Lease, u32)>> {
        let rows = sqlx::query!(
            r#"select id, epoch, timeout_secs as "secs!" from stage
               where state in ('running', 'parked') and timeout_secs is not null
                 and drop_reason is null and done_at is null
                 and started_at + make_interval(secs => timeout_secs) < now()
               order by started_at limit $1"#,
            ROUND,
        )
        .fetch_all(&self.pool)
        .await?;
        let lease = |id, epoch| Lease { stage: StageId(id), epoch: Epoch(epoch) };
        Ok(rows.into_iter().map(|row| (lease(row.id, row.epoch), small(row.secs))).collect())
    }

    /// What the stages need that are ready, each combination once.
    pub async fn wanted(&self) -> Result<Vec<NeedsRow>> {
        let rows = sqlx::query!(
            r#"select distinct platform, labels, cpu_millis, memory_bytes from stage
               where state = 'ready'"#
        )
        .fetch_all(&self.pool)
        .await?;
        let needs = rows.into_iter().map(|row| NeedsRow {
            platform: row.platform,
            labels: row.labels,
            cpu_millis: small(row.cpu_millis),
            memory_bytes: large(row.memory_bytes),
        });
        Ok(needs.collect())
    }

    /// What the live workers have, each combination once.
    pub async fn offered(&self) -> Result<Vec<OfferRow>> {
        let rows = sqlx::query!(
            r#"select distinct platforms, labels, cpu_millis, memory_bytes from worker
               where session is not null and not lost and not draining"#
        )
        .fetch_all(&self.pool)
        .await?;
        let offers = rows.into_iter().map(|row| OfferRow {
            platforms: row.platforms,
            labels: row.labels,
            cpu_millis: small(row.cpu_millis),
            memory_bytes: large(row.memory_bytes),
        });
        Ok(offers.collect())
    }

    /// Writes down why nobody can run the stages with these needs, or that somebody can. Returns
    /// the builds that this changes.
    pub async fn mark_placeable(
        &self,
        needs: &NeedsRow,
        reason: Option<&str>,
    ) -> Result<Vec<BuildId>> {
        let rows = sqlx::query_scalar!(
            r#"with those as (
                   select id from stage
                   where state = 'ready' and platform = $1 and labels = $2 and cpu_millis = $3
                     and memory_bytes = $4 and unplaceable_reason is distinct from $5
                   order by id for update skip locked)
               update stage s set unplaceable_reason = $5,
                      unplaceable_since = case when $5::text is null then null
                                          else coalesce(s.unplaceable_since, now()) end
               from those where s.id = those.id returning s.build_id"#,
            needs.platform,
            &needs.labels,
            int(needs.cpu_millis),
            bigint(needs.memory_bytes),
            reason,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(BuildId).collect())
    }

    /// Stages that nobody could run for so long.
    pub async fn long_unplaceable(&self, after_secs: f64) -> Result<Vec<UnplaceableRow>> {
        let rows = sqlx::query!(
            r#"select id, unplaceable_reason as "reason!" from stage
               where state = 'ready' and unplaceable_reason is not null
                 and unplaceable_since < now() - make_interval(secs => $1)
               order by id limit $2"#,
            after_secs,
            ROUND,
        )
        .fetch_all(&self.pool)
        .await?;
        let row = |id, reason| UnplaceableRow { id: StageId(id), reason };
        Ok(rows.into_iter().map(|found| row(found.id, found.reason)).collect())
    }

    /// Fails a stage that nobody holds, its build, and those that share it. None when somebody has
    /// taken it meanwhile.
    pub async fn fail_waiting(&self, stage: StageId, failure: &Failure) -> Result<Vec<BuildId>> {
        let document = write("failure", failure)?;
        let mut transaction = self.begin().await?;
        let build = sqlx::query_scalar!(
            r#"update stage set state = 'failed', ended_at = now()
               where id = $1 and state = 'ready' returning build_id"#,
            stage.0,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(build) = build else { return Ok(Vec::new()) };
        sqlx::query!(
            "update stage_detail set failure = $2 where stage_id = $1",
            stage.0,
            document,
        )
        .execute(&mut *transaction)
        .await?;
        let mut builds = vec![BuildId(build)];
        builds.extend(share_failure(&mut transaction, stage, &document).await?);
        let ended = sqlx::query!(
            r#"update build set state = 'failed', failure = $2, ended_at = now()
               where id = $1 and state = 'running'"#,
            build,
            document,
        )
        .execute(&mut *transaction)
        .await?;
        if ended.rows_affected() == 1 {
            drop_stages(&mut transaction, build, "build_failed").await?;
        } else {
            builds.extend(fail_kept(&mut transaction, build, &document).await?);
        }
        transaction.commit().await?;
        Ok(builds)
    }
}
