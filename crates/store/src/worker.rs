//! Workers: enrolment, the state exchange, claims, losses.

use common::plan::SliceSelector;
use common::{BuildId, Epoch, Lease, Platform, SessionId, StageId, WorkerId};
use uuid::Uuid;

use crate::cache::CachedSlice;
use crate::result::requeue;
use crate::{Result, Store, StoreError, int, read};

/// What a worker says of itself at enrolment.
#[derive(Debug, Clone)]
pub struct WorkerFacts {
    /// Its id.
    pub id: WorkerId,
    /// Its name.
    pub name: String,
    /// What it runs.
    pub platforms: Vec<Platform>,
    /// Version of its program.
    pub version: String,
}

/// A stage that a worker says it holds.
#[derive(Debug, Clone)]
pub struct Held {
    /// Under which lease.
    pub lease: Lease,
    /// Whether it is parked.
    pub parked: bool,
    /// The slices that it waits for.
    pub wishes: Vec<(StageId, SliceSelector)>,
}

/// A stage that a worker holds, as the database sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRow {
    /// The lease.
    pub lease: Lease,
    /// Whether the holder has to drop it, and why.
    pub drop_reason: Option<String>,
}

/// What the exchange came to.
#[derive(Debug, Clone, Default)]
pub struct SyncState {
    /// Leases that the worker says it holds and that are not its.
    pub stale: Vec<Lease>,
    /// Leases that it has to drop, and why.
    pub dropped: Vec<(Lease, String)>,
    /// Leases that are its and that it does not know of yet.
    pub undelivered: Vec<Lease>,
    /// Slices that have arrived for parked stages.
    pub inputs: Vec<(Lease, StageId, CachedSlice)>,
    /// Whether it is to take no more work.
    pub drain: bool,
}

/// A stage that waits for a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyRow {
    /// The stage.
    pub id: StageId,
    /// Its build.
    pub build: BuildId,
    /// Its project.
    pub project: String,
    /// What it needs.
    pub platform: String,
    /// Stages after it on the longest path.
    pub depth: u32,
    /// Milliseconds that it has been ready.
    pub waiting_millis: u64,
    /// A live worker that has its base.
    pub home: Option<WorkerId>,
    /// Workers that have failed it.
    pub failed_on: Vec<WorkerId>,
    /// Running stages of its project.
    pub project_running: u32,
}

impl Store {
    /// Every platform that a worker of this farm has ever run commands for.
    pub async fn worker_platforms(&self) -> Result<Vec<Platform>> {
        let rows = sqlx::query_scalar!(
            r#"select distinct unnest(platforms) as "platform!" from worker order by 1"#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.iter().filter_map(|text| text.parse().ok()).collect())
    }

    /// Adds a worker, or brings what is known of it up to date.
    pub async fn enrol_worker(&self, worker: &WorkerFacts) -> Result<()> {
        let platforms: Vec<String> = worker.platforms.iter().map(Platform::to_string).collect();
        sqlx::query!(
            r#"insert into worker (id, name, platforms, version) values ($1, $2, $3, $4)
               on conflict (id) do update set name = excluded.name,
                   platforms = excluded.platforms, version = excluded.version, last_seen = now()"#,
            worker.id.0,
            worker.name,
            &platforms,
            worker.version,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Takes a worker's state and says what differs from what it should be. Stage rows are written
    /// only where something changed.
    pub async fn sync_worker(
        &self,
        worker: WorkerId,
        session: SessionId,
        slots: u32,
        free_slots: u32,
        draining: bool,
        held: &[Held],
    ) -> Result<SyncState> {
        let mut transaction = self.begin().await?;
        let known =
            sqlx::query!("select session, lost from worker where id = $1 for update", worker.0)
                .fetch_optional(&mut *transaction)
                .await?
                .ok_or(StoreError::NotFound("worker"))?;
        if known.session != Some(session.0) {
            // Another run of the process: what the old one held is gone with it.
            give_up_held(&mut transaction, worker.0, Some(session.0)).await?;
        }
        sqlx::query!(
            r#"update worker set session = $2, slots = $3, free_slots = $4, draining = $5,
                      lost = false, last_seen = now() where id = $1"#,
            worker.0,
            session.0,
            int(slots),
            int(free_slots),
            draining,
        )
        .execute(&mut *transaction)
        .await?;
        let rows = sqlx::query!(
            r#"select id, epoch, state, drop_reason from stage
               where worker_id = $1 and session = $2 and state in ('running', 'parked')"#,
            worker.0,
            session.0,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let mut state = SyncState { drain: draining, ..SyncState::default() };
        for row in &rows {
            let lease = Lease { stage: StageId(row.id), epoch: Epoch(row.epoch) };
            let told = held.iter().find(|held| held.lease == lease);
            match (told, &row.drop_reason) {
                (None, None) => state.undelivered.push(lease),
                (Some(_), Some(reason)) => state.dropped.push((lease, reason.clone())),
                (Some(told), None) => {
                    let wanted = if told.parked { "parked" } else { "running" };
                    if row.state != wanted {
                        sqlx::query!("update stage set state = $2 where id = $1", row.id, wanted)
                            .execute(&mut *transaction)
                            .await?;
                    }
                    for (producer, selector) in &told.wishes {
                        if let Some(slice) =
                            find_slice(&mut transaction, *producer, selector).await?
                        {
                            state.inputs.push((lease, *producer, slice));
                        }
                    }
                }
                // It was to be dropped and is: nobody else will end it.
                (None, Some(_)) => {
                    sqlx::query!(
                        "update stage set state = 'cancelled', ended_at = now() where id = $1",
                        row.id
                    )
                    .execute(&mut *transaction)
                    .await?;
                }
            }
        }
        let live = |lease: &Lease| {
            rows.iter().any(|row| row.id == lease.stage.0 && row.epoch == lease.epoch.0)
        };
        state.stale = held.iter().map(|held| held.lease).filter(|lease| !live(lease)).collect();
        transaction.commit().await?;
        Ok(state)
    }

    /// Stages that wait for a worker, most urgent first.
    pub async fn ready_stages(&self, limit: u32) -> Result<Vec<ReadyRow>> {
        let rows = sqlx::query!(
            r#"select s.id, s.build_id, s.project, s.platform, s.depth,
                      (extract(epoch from now() - s.ready_at) * 1000)::bigint as "waiting!",
                      (select w.id from worker w where w.id = s.home_worker and not w.lost
                         and not w.draining and w.free_slots > 0) as home,
                      (select coalesce(array_agg(a.worker_id), '{}') from attempt a
                       where a.stage_id = s.id and a.outcome in ('failed', 'lost')) as "failed_on!",
                      (select count(*) from stage r where r.project = s.project
                         and r.state = 'running') as "running!"
               from stage s
               where s.state = 'ready' and s.not_before <= now()
               order by s.depth desc, s.ready_at limit $1"#,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        let ready = rows.into_iter().map(|row| ReadyRow {
            id: StageId(row.id),
            build: BuildId(row.build_id),
            project: row.project,
            platform: row.platform,
            depth: u32::try_from(row.depth).unwrap_or(0),
            waiting_millis: u64::try_from(row.waiting).unwrap_or(0),
            home: row.home.map(WorkerId),
            failed_on: row.failed_on.into_iter().map(WorkerId).collect(),
            project_running: u32::try_from(row.running).unwrap_or(u32::MAX),
        });
        Ok(ready.collect())
    }

    /// Live workers other than this one that have a free slot.
    pub async fn other_idle_workers(&self, worker: WorkerId) -> Result<u32> {
        let count = sqlx::query_scalar!(
            r#"select count(*) as "count!" from worker
               where id <> $1 and not lost and not draining and free_slots > 0
                 and last_seen > now() - interval '10 seconds'"#,
            worker.0,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Gives a stage to a worker, if it is still ready and the worker is still live. The epoch
    /// grows: whoever held the stage before can write nothing any more.
    pub async fn claim_stage(
        &self,
        stage: StageId,
        worker: WorkerId,
        session: SessionId,
    ) -> Result<Option<Lease>> {
        let mut transaction = self.begin().await?;
        let epoch = sqlx::query_scalar!(
            r#"update stage s set state = 'running', epoch = s.epoch + 1, attempts = s.attempts + 1,
                      worker_id = $2, session = $3, drop_reason = null, started_at = now()
               from worker w
               where s.id = (select id from stage where id = $1 and state = 'ready'
                             and not_before <= now() for update skip locked)
                 and w.id = $2 and w.session = $3 and not w.lost and not w.draining
               returning s.epoch"#,
            stage.0,
            worker.0,
            session.0,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(epoch) = epoch else { return Ok(None) };
        sqlx::query!(
            "insert into attempt (stage_id, epoch, worker_id) values ($1, $2, $3)",
            stage.0,
            epoch,
            worker.0,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Some(Lease { stage, epoch: Epoch(epoch) }))
    }

    /// Gives up on workers that have not called for `lost_after_secs`: their stages are ready again.
    /// Returns how many workers that were.
    pub async fn expire_workers(&self, lost_after_secs: f64) -> Result<usize> {
        let mut transaction = self.begin().await?;
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
async fn give_up_held(
    connection: &mut sqlx::PgConnection,
    worker: Uuid,
    except_session: Option<Uuid>,
) -> Result<()> {
    let held = sqlx::query!(
        r#"select s.id, s.epoch, s.drop_reason, b.state as build_state
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
        if stage.drop_reason.is_some() || stage.build_state != "running" {
            sqlx::query!(
                "update stage set state = 'cancelled', ended_at = now() where id = $1",
                stage.id
            )
            .execute(&mut *connection)
            .await?;
        } else {
            requeue(connection, StageId(stage.id), 0.0, true).await?;
        }
    }
    Ok(())
}

async fn find_slice(
    connection: &mut sqlx::PgConnection,
    producer: StageId,
    selector: &SliceSelector,
) -> Result<Option<CachedSlice>> {
    let row = sqlx::query!(
        r#"select paths, manifest, inline_manifest, files, content_bytes, stored_bytes
           from stage_slice where stage_id = $1 and selector = $2"#,
        producer.0,
        selector.digest().to_string(),
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let paths: Vec<String> = read("slice", row.paths)?;
    let manifest = row.manifest.parse().map_err(|_| StoreError::WrongState("slice"))?;
    Ok(Some(CachedSlice {
        selector: SliceSelector::new(paths),
        manifest,
        inline_manifest: row.inline_manifest,
        files: u64::try_from(row.files).unwrap_or(0),
        content_bytes: u64::try_from(row.content_bytes).unwrap_or(0),
        stored_bytes: u64::try_from(row.stored_bytes).unwrap_or(0),
    }))
}
