//! Workers that fail too often are left alone for a while.

use common::{Failure, Lease};
use uuid::Uuid;

use crate::result::failed_alike;
use crate::{Result, Store, int};

/// When a worker is left alone, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuarantineRule {
    /// Stages that failed on it by the farm's fault since one last succeeded.
    pub failures: u32,
    /// Seconds.
    pub secs: f64,
}

impl Store {
    /// Workers have finished stages well: what they failed before is forgotten.
    pub async fn note_successes(&self, leases: &[Lease]) -> Result<()> {
        let stages: Vec<Uuid> = leases.iter().map(|lease| lease.stage.0).collect();
        let epochs: Vec<i64> = leases.iter().map(|lease| lease.epoch.0).collect();
        sqlx::query!(
            r#"with those as (
                   select w.id from worker w
                   where w.failed_stages <> '{}' and w.id in (
                       select a.worker_id from unnest($1::uuid[], $2::bigint[]) l(stage, epoch)
                       join attempt a on a.stage_id = l.stage and a.epoch = l.epoch)
                   order by w.id for update of w)
               update worker w set failed_stages = '{}' from those where w.id = those.id"#,
            &stages,
            &epochs,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// A stage failed on a worker by the farm's fault. A stage that failed alike elsewhere counts
    /// against nobody; nor is anybody left alone when less than half of the workers would be left.
    /// Returns the worker's name if it is left alone from now on.
    pub async fn note_fault(
        &self,
        lease: Lease,
        failure: &Failure,
        rule: QuarantineRule,
    ) -> Result<Option<String>> {
        let mut transaction = self.begin().await?;
        if failed_alike(&mut transaction, lease, failure).await? {
            sqlx::query!(
                r#"with those as (select id from worker where $1 = any(failed_stages)
                                  order by id for update)
                   update worker w set failed_stages = array_remove(failed_stages, $1)
                   from those where w.id = those.id"#,
                lease.stage.0,
            )
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            return Ok(None);
        }
        sqlx::query!(
            r#"update worker w set failed_stages = failed_stages || $1::uuid from attempt a
               where a.stage_id = $1 and a.epoch = $2 and w.id = a.worker_id
                 and not ($1 = any(failed_stages)) and cardinality(failed_stages) < 100"#,
            lease.stage.0,
            lease.epoch.0,
        )
        .execute(&mut *transaction)
        .await?;
        let reason =
            format!("{} stages failed on it, the last one: {}", rule.failures, failure.message);
        let name = sqlx::query_scalar!(
            r#"update worker w set quarantined_until = now() + make_interval(secs => $4),
                      quarantine_reason = $5, failed_stages = '{}'
               from attempt a
               where a.stage_id = $1 and a.epoch = $2 and w.id = a.worker_id
                 and cardinality(w.failed_stages) >= $3
                 and (select count(*) filter (where o.quarantined_until is null
                                                 or o.quarantined_until <= now())
                             > count(*) filter (where o.quarantined_until > now())
                      from worker o where o.id <> w.id and not o.lost and not o.draining)
               returning w.name"#,
            lease.stage.0,
            lease.epoch.0,
            int(rule.failures),
            rule.secs,
            reason,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(name)
    }
}
