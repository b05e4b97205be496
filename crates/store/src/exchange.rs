//! The state exchange of many workers at once.

use std::collections::{HashMap, HashSet};

use common::{Epoch, Lease, SessionId, StageId, WorkerId};
use uuid::Uuid;

use crate::ready::{AskingRow, OfferRow, large, small};
use crate::worker::{Held, SyncState};
use crate::{Result, Store, int};

/// What a worker says of itself.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Who.
    pub worker: WorkerId,
    /// Which run of its process.
    pub session: SessionId,
    /// Stages that it can run at once.
    pub slots: u32,
    /// Slots that are free.
    pub free_slots: u32,
    /// Whether it wants no more work.
    pub draining: bool,
    /// All that it holds.
    pub held: Vec<Held>,
}

/// What an exchange came to.
#[derive(Debug, Clone)]
pub struct Exchanged {
    /// Where the worker's state differs from what it should be.
    pub state: SyncState,
    /// What it offers.
    pub asking: AskingRow,
}

/// A stage that a worker holds, as the database sees it.
struct HeldNow {
    lease: Lease,
    session: Option<Uuid>,
    is_parked: bool,
    is_done: bool,
    is_dropped: bool,
    cpu_millis: u32,
    memory_bytes: u64,
}

impl Store {
    /// Takes the states of workers whose session is known and whose stages are as they say, in two
    /// statements for all of them. Those that are not in the answer need an exchange of their own.
    pub async fn exchange(&self, all: &[Exchange]) -> Result<HashMap<WorkerId, Exchanged>> {
        let mut seen = HashSet::new();
        // A worker that calls twice at once counts once.
        let once: Vec<&Exchange> = all.iter().filter(|one| seen.insert(one.worker)).collect();
        let offers = self.see_workers(&once).await?;
        let workers: Vec<Uuid> = offers.keys().map(|worker| worker.0).collect();
        let mut held = self.held_by(&workers).await?;
        let mut done = HashMap::new();
        for one in once {
            let Some((offer, is_quarantined)) = offers.get(&one.worker).cloned() else { continue };
            let rows = held.remove(&one.worker).unwrap_or_default();
            let running = rows.iter().filter(|row| !row.is_parked && !row.is_done);
            let used = running.fold((0_u32, 0_u64), |(cpu, memory), row| {
                (cpu.saturating_add(row.cpu_millis), memory.saturating_add(row.memory_bytes))
            });
            if let Some(state) = compare(one, &rows) {
                let asking = AskingRow {
                    offer,
                    used_cpu_millis: used.0,
                    used_memory_bytes: used.1,
                    is_quarantined,
                };
                done.insert(one.worker, Exchanged { state, asking });
            }
        }
        Ok(done)
    }

    /// Notes that these workers live; those of another session are left out.
    async fn see_workers(&self, all: &[&Exchange]) -> Result<HashMap<WorkerId, (OfferRow, bool)>> {
        let workers: Vec<Uuid> = all.iter().map(|one| one.worker.0).collect();
        let sessions: Vec<Uuid> = all.iter().map(|one| one.session.0).collect();
        let slots: Vec<i32> = all.iter().map(|one| int(one.slots)).collect();
        let free: Vec<i32> = all.iter().map(|one| int(one.free_slots)).collect();
        let draining: Vec<bool> = all.iter().map(|one| one.draining).collect();
        let rows = sqlx::query!(
            r#"with asked as (
                   select * from unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[], $5::bool[])
                                 a(id, session, slots, free_slots, draining)),
               known as (
                   select w.id from worker w join asked a on a.id = w.id and a.session = w.session
                   order by w.id for update of w)
               update worker w set slots = a.slots, free_slots = a.free_slots,
                      draining = a.draining, lost = false, last_seen = now()
               from asked a join known k on k.id = a.id where w.id = a.id
               returning w.id, w.platforms, w.labels, w.cpu_millis, w.memory_bytes,
                         coalesce(w.quarantined_until > now(), false) as "quarantined!""#,
            &workers,
            &sessions,
            &slots,
            &free,
            &draining,
        )
        .fetch_all(&self.pool)
        .await?;
        let offer = |platforms, labels, cpu_millis, memory_bytes| OfferRow {
            platforms,
            labels,
            cpu_millis: small(cpu_millis),
            memory_bytes: large(memory_bytes),
        };
        let seen = rows.into_iter().map(|row| {
            let offer = offer(row.platforms, row.labels, row.cpu_millis, row.memory_bytes);
            (WorkerId(row.id), (offer, row.quarantined))
        });
        Ok(seen.collect())
    }

    async fn held_by(&self, workers: &[Uuid]) -> Result<HashMap<WorkerId, Vec<HeldNow>>> {
        let rows = sqlx::query!(
            r#"select worker_id as "worker!", id, epoch, session, state, cpu_millis, memory_bytes,
                      done_at is not null as "done!", drop_reason is not null as "dropped!"
               from stage where worker_id = any($1) and state in ('running', 'parked')"#,
            workers,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut held: HashMap<WorkerId, Vec<HeldNow>> = HashMap::new();
        for row in rows {
            held.entry(WorkerId(row.worker)).or_default().push(HeldNow {
                lease: Lease { stage: StageId(row.id), epoch: Epoch(row.epoch) },
                session: row.session,
                is_parked: row.state == "parked",
                is_done: row.done,
                is_dropped: row.dropped,
                cpu_millis: small(row.cpu_millis),
                memory_bytes: large(row.memory_bytes),
            });
        }
        Ok(held)
    }
}

/// What there is to say to a worker; none when something has to be written or looked up for it.
fn compare(one: &Exchange, rows: &[HeldNow]) -> Option<SyncState> {
    let mut state = SyncState { drain: one.draining, ..SyncState::default() };
    let own = |row: &&HeldNow| row.session == Some(one.session.0);
    for row in rows.iter().filter(own) {
        let told = one.held.iter().find(|held| held.lease == row.lease);
        if row.is_dropped
            || told.is_some_and(|told| told.parked != row.is_parked || !told.wishes.is_empty())
        {
            return None;
        }
        if told.is_none() {
            state.undelivered.push(row.lease);
        }
    }
    let is_live = |lease: &Lease| rows.iter().filter(own).any(|row| row.lease == *lease);
    state.stale = one.held.iter().map(|held| held.lease).filter(|lease| !is_live(lease)).collect();
    Some(state)
}
