//! Who holds a stage: claims, and what becomes of those of workers that are gone.

use std::collections::HashMap;

use common::{Epoch, Lease, SessionId, StageId, WorkerId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::flight::wanted_by_others;
use crate::job::{JobColumns, StageJobRow};
use crate::result::{give_up_exports, requeue};
use crate::{Result, Store};

/// A stage for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The stage.
    pub stage: StageId,
    /// The worker.
    pub worker: WorkerId,
    /// Its session.
    pub session: SessionId,
}

/// A stage that a worker has got.
#[derive(Debug, Clone)]
pub struct Given {
    /// The worker.
    pub worker: WorkerId,
    /// What it holds now.
    pub lease: Lease,
    /// All that it has to know of it; none where that could not be read. Then it has to ask.
    pub job: Option<StageJobRow>,
}

/// What is remembered between looks for silent workers.
#[derive(Debug, Default)]
pub struct Watch {
    last: Option<OffsetDateTime>,
    /// There was no gap between looks since then.
    since: Option<OffsetDateTime>,
}

/// Two looks may lie so far apart, at least: they come every second, and machines are slow at times.
const LEAST_GAP: time::Duration = time::Duration::milliseconds(2500);

impl Watch {
    /// Takes note of a look. Whether workers could have called all the time that they had.
    fn look(&mut self, now: OffsetDateTime, lost_after: time::Duration) -> bool {
        let gap = LEAST_GAP.max(lost_after / 4);
        let since = match (self.last, self.since) {
            (Some(last), Some(since)) if now - last <= gap => since,
            _ => now,
        };
        (self.last, self.since) = (Some(now), Some(since));
        now - since >= lost_after
    }
}

impl Store {
    /// Gives stages to workers, each if it is still ready and its worker still live. The epochs grow:
    /// whoever held a stage before can write nothing any more. Returns what was given.
    pub async fn claim_stages(&self, claims: &[Claim]) -> Result<Vec<Given>> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let stages: Vec<Uuid> = claims.iter().map(|claim| claim.stage.0).collect();
        let workers: Vec<Uuid> = claims.iter().map(|claim| claim.worker.0).collect();
        let sessions: Vec<Uuid> = claims.iter().map(|claim| claim.session.0).collect();
        let rows = sqlx::query!(
            r#"with given as (
                   select s.id, w.id as worker, w.session
                   from unnest($1::uuid[], $2::uuid[], $3::uuid[]) g(stage, worker, session)
                   join worker w on w.id = g.worker and w.session = g.session
                   join stage s on s.id = g.stage
                   where s.state = 'ready' and s.not_before <= now()
                     and coalesce(s.only_worker, w.id) = w.id and not w.lost and not w.draining
                     and (w.quarantined_until is null or w.quarantined_until <= now())
                   order by s.id for update of s skip locked),
               claimed as (
                   update stage s
                   set state = 'running', epoch = s.epoch + 1, attempts = s.attempts + 1,
                       worker_id = g.worker, session = g.session, drop_reason = null,
                       started_at = now(), unplaceable_since = null, unplaceable_reason = null
                   from given g where s.id = g.id
                   returning s.id, s.epoch, g.worker),
               noted as (
                   insert into attempt (stage_id, epoch, worker_id)
                   select id, epoch, worker from claimed)
               select c.epoch, c.worker, j.id as "id!", j.build_id as "build_id!",
                      j.project as "project!", j.kind as "kind!", j.label as "label!",
                      j.dockerfile as "dockerfile!", j.plan as "plan!",
                      j.first_step as "first_step!", j.base_layers,
                      j.make_slices as "make_slices!", j.context, j.producers,
                      j.has_slices as "has_slices!"
               from claimed c join stage_job j on j.id = c.id"#,
            &stages,
            &workers,
            &sessions,
        )
        .fetch_all(&self.hot)
        .await?;
        let mut leases = Vec::new();
        let columns = rows.into_iter().map(|row| {
            let lease = Lease { stage: StageId(row.id), epoch: Epoch(row.epoch) };
            leases.push((WorkerId(row.worker), lease));
            JobColumns {
                id: row.id,
                build_id: row.build_id,
                project: row.project,
                kind: row.kind,
                label: row.label,
                dockerfile: row.dockerfile,
                plan: row.plan,
                first_step: row.first_step,
                base_layers: row.base_layers,
                make_slices: row.make_slices,
                context: row.context,
                producers: row.producers,
                has_slices: row.has_slices,
            }
        });
        let columns = columns.collect();
        // They are given away, whatever becomes of this.
        let jobs = self.jobs(columns).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "what was given away could not be read: the workers ask for it");
            Vec::new()
        });
        let mut jobs: HashMap<StageId, StageJobRow> =
            jobs.into_iter().map(|job| (job.id, job)).collect();
        let given = leases.into_iter().map(|(worker, lease)| {
            let job = jobs.remove(&lease.stage);
            Given { worker, lease, job }
        });
        Ok(given.collect())
    }

    /// Gives up on workers that have not called for `lost_after_secs`: their stages are ready again.
    /// Returns how many workers that were.
    ///
    /// While the database was away, or whoever looks here, nobody could call: then all workers have
    /// that long again. Everything goes by the clock that is read when the transaction begins, so a
    /// pause between here and the update takes nobody's lease either.
    pub async fn expire_workers(&self, lost_after_secs: f64, watch: &mut Watch) -> Result<usize> {
        let mut transaction = self.begin().await?;
        let now =
            sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(&mut *transaction).await?;
        if !watch.look(now, time::Duration::seconds_f64(lost_after_secs)) {
            return Ok(0);
        }
        let lost = sqlx::query_scalar!(
            r#"update worker set lost = true, free_slots = 0
               where not lost and session is not null
                 and last_seen < now() - make_interval(secs => $1)
               returning id"#,
            lost_after_secs,
        )
        .fetch_all(&mut *transaction)
        .await?;
        for worker in &lost {
            give_up_held(&mut transaction, *worker, None).await?;
        }
        transaction.commit().await?;
        Ok(lost.len())
    }
}

/// Makes what a worker held ready again, or ends it where it was to be dropped anyway.
pub(crate) async fn give_up_held(
    connection: &mut sqlx::PgConnection,
    worker: Uuid,
    except_session: Option<Uuid>,
) -> Result<()> {
    let held = sqlx::query!(
        r#"select s.id, s.epoch, s.drop_reason, s.build_id as build, b.state as build_state
           from stage s join build b on b.id = s.build_id
           where s.worker_id = $1 and s.state in ('running', 'parked')
             and ($2::uuid is null or s.session is distinct from $2)
           order by s.id for update of s"#,
        worker,
        except_session,
    )
    .fetch_all(&mut *connection)
    .await?;
    for stage in held {
        sqlx::query!(
            r#"update attempt set ended_at = now(), outcome = 'lost'
               where stage_id = $1 and epoch = $2"#,
            stage.id,
            stage.epoch,
        )
        .execute(&mut *connection)
        .await?;
        let is_wanted = stage.drop_reason.is_none()
            && (stage.build_state == "running"
                || wanted_by_others(connection, stage.build).await?.contains(&stage.id));
        if is_wanted {
            requeue(connection, StageId(stage.id), 0.0, true).await?;
        } else {
            // Steps that have ended well are the build's; only what they left behind is lost.
            sqlx::query!(
                r#"update stage set ended_at = now(), state = case
                          when done_at is not null and $2 then 'succeeded' else 'cancelled' end
                   where id = $1"#,
                stage.id,
                stage.build_state == "succeeded",
            )
            .execute(&mut *connection)
            .await?;
            give_up_exports(connection, stage.build).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_nobody_could_call_is_nobodys_silence() {
        let start = OffsetDateTime::UNIX_EPOCH;
        let lost_after = time::Duration::seconds(15);
        let mut watch = Watch::default();
        let mut look = |secs| watch.look(start + time::Duration::seconds(secs), lost_after);
        // Whoever has just begun to look has not seen anybody be silent.
        assert!((0..15).all(|secs| !look(secs)));
        assert!(look(15) && look(16) && look(19));
        // The database was away for 20 seconds.
        assert!((39..54).all(|secs| !look(secs)));
        assert!(look(54));
    }
}
