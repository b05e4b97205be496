//! Workers: enrolment and the state exchange.

use common::plan::SliceSelector;
use common::{Epoch, Lease, Platform, StageId, WorkerId};

use crate::cache::CachedSlice;
use crate::claim::give_up_held;
use crate::exchange::{Exchange, Exchanged};
use crate::{Result, Store, StoreError, bigint, int, read};

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
    /// What stages may ask for.
    pub labels: Vec<String>,
    /// Processors in thousandths; 0 is not said.
    pub cpu_millis: u32,
    /// Memory; 0 is not said.
    pub memory_bytes: u64,
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
            r#"insert into worker (id, name, platforms, version, labels, cpu_millis, memory_bytes)
               values ($1, $2, $3, $4, $5, $6, $7)
               on conflict (id) do update set name = excluded.name,
                   platforms = excluded.platforms, version = excluded.version, last_seen = now(),
                   labels = excluded.labels, cpu_millis = excluded.cpu_millis,
                   memory_bytes = excluded.memory_bytes"#,
            worker.id.0,
            worker.name,
            &platforms,
            worker.version,
            &worker.labels,
            int(worker.cpu_millis),
            bigint(worker.memory_bytes),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Takes a worker's state and says what differs from what it should be, whatever that is. Stage
    /// rows are written only where something changed.
    pub async fn exchange_alone(&self, one: &Exchange) -> Result<Exchanged> {
        let state = self.sync_worker(one).await?;
        Ok(Exchanged { state, asking: self.asking_worker(one.worker).await? })
    }

    async fn sync_worker(&self, one: &Exchange) -> Result<SyncState> {
        let Exchange { worker, session, slots, free_slots, draining, ref held } = *one;
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
}

async fn find_slice(
    connection: &mut sqlx::PgConnection,
    producer: StageId,
    selector: &SliceSelector,
) -> Result<Option<CachedSlice>> {
    let row = sqlx::query!(
        r#"select paths, manifest, inline_manifest, files, content_bytes, stored_bytes, content
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
        content: row.content.and_then(|digest| digest.parse().ok()),
    }))
}
