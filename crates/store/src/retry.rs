//! Running again what failed.

use common::BuildId;

use crate::object::renew_objects_of;
use crate::{Result, Store, StoreError};

/// What became of the wish to run a build again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retried {
    /// It runs again.
    Again,
    /// It waits or runs: somebody else may have asked for it.
    Runs,
    /// It has ended well, or a newer one has replaced it.
    NotFailed,
    /// Workers have not let go of its stages yet.
    StillEnding,
    /// It came with secrets, or with agents: they are gone.
    NeedsClient,
    /// What it has made, or its context, is not kept any more.
    Gone,
}

impl Store {
    /// Runs the stages of a build again that failed or were cancelled; those that have ended well are
    /// kept. A build that was not planned yet is planned again.
    pub async fn retry_build(&self, build: BuildId) -> Result<Retried> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query!(
            r#"select state, purged_at is not null as "purged!",
                      coalesce(request->'secrets', '{}') <> '{}'
                      or coalesce(request->'agents', '[]') <> '[]' as "brought!"
               from build where id = $1 for update"#,
            build.0,
        )
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or(StoreError::NotFound("build"))?;
        match row.state.as_str() {
            "failed" | "cancelled" => {}
            "queued" | "planning" | "running" => return Ok(Retried::Runs),
            _ => return Ok(Retried::NotFailed),
        }
        if row.brought {
            return Ok(Retried::NeedsClient);
        }
        if row.purged || !renew_objects_of(&mut transaction, build.0).await?.is_empty() {
            return Ok(Retried::Gone);
        }
        let stages = sqlx::query!(
            r#"select count(*) as "all!",
                      count(*) filter (where state in ('running', 'parked')) as "held!"
               from stage where build_id = $1"#,
            build.0,
        )
        .fetch_one(&mut *transaction)
        .await?;
        if stages.held > 0 {
            return Ok(Retried::StillEnding);
        }
        sqlx::query!(
            r#"update build set state = $2, failure = null, ended_at = null, planner = null,
                      planner_until = null, deadline = now() + make_interval(secs => timeout_secs)
               where id = $1"#,
            build.0,
            if stages.all == 0 { "queued" } else { "running" },
        )
        .execute(&mut *transaction)
        .await?;
        forget_ends(&mut transaction, build).await?;
        sqlx::query!(
            r#"update stage s set state = case when n.missing = 0 then 'ready' else 'waiting' end,
                      bases_missing = n.missing, attempts = 0, drop_reason = null,
                      worker_id = null, session = null, home_worker = null, not_before = now(),
                      attached_to = null, done_at = null, only_worker = null,
                      started_at = null, ended_at = null, unplaceable_since = null, unplaceable_reason = null,
                      ready_at = case when n.missing = 0 then now() end
               from (select s.id, (count(p.id) filter (
                            where p.state not in ('succeeded', 'cached')))::int as missing
                     from stage s left join stage_edge e on e.consumer = s.id and e.is_base
                          left join stage p on p.id = e.producer
                     where s.build_id = $1 and s.state in ('failed', 'cancelled')
                     group by s.id) n
               where s.id = n.id"#,
            build.0,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Retried::Again)
    }
}

/// Steps and details of stages that failed or were cancelled are as before they ran.
async fn forget_ends(connection: &mut sqlx::PgConnection, build: BuildId) -> Result<()> {
    sqlx::query!(
        r#"update step t set state = 'pending' from stage s
           where s.id = t.stage_id and s.build_id = $1 and s.state in ('failed', 'cancelled')
             and t.state in ('running', 'failed', 'done')"#,
        build.0,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        r#"update stage_detail d set failure = null, timing = '{}', transfers = '[]'
           from stage s
           where s.id = d.stage_id and s.build_id = $1 and s.state in ('failed', 'cancelled')"#,
        build.0,
    )
    .execute(connection)
    .await?;
    Ok(())
}
