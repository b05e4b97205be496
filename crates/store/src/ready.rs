//! What the scheduler looks at: stages that wait, workers, the projects' shares.

use std::collections::BTreeSet;

use common::{BuildId, StageId, WorkerId};
use uuid::Uuid;

use crate::{Result, Store, StoreError, bigint, int};

/// Candidates of one project for a round: enough that locality has a choice, and no more than a round
/// gives away in a moment.
const LEAST_CANDIDATES: u32 = 32;
const MOST_CANDIDATES: u32 = 256;

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
    pub needs: NeedsRow,
    /// Of its build.
    pub priority: i16,
    /// Predicted milliseconds to the end of its build.
    pub critical_millis: u64,
    /// Milliseconds that it has been ready.
    pub waiting_millis: u64,
    /// Bytes of what it starts from.
    pub base_bytes: u64,
    /// The name of that.
    pub base_chain: Option<String>,
    /// The worker that made it, in the same build.
    pub home: Option<WorkerId>,
    /// The only worker that can run it now.
    pub only: Option<WorkerId>,
    /// Some workers that have what it starts from and could take it now, all there are when they are
    /// less than two.
    pub near: Vec<WorkerId>,
    /// Workers that have failed it.
    pub failed: Vec<WorkerId>,
}

/// What a stage needs of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeedsRow {
    /// The platform.
    pub platform: String,
    /// Labels.
    pub labels: Vec<String>,
    /// Declared processor time.
    pub cpu_millis: u32,
    /// Declared memory.
    pub memory_bytes: u64,
}

/// What a worker has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OfferRow {
    /// Platforms.
    pub platforms: Vec<String>,
    /// Labels.
    pub labels: Vec<String>,
    /// Processors in thousandths.
    pub cpu_millis: u32,
    /// Memory.
    pub memory_bytes: u64,
}

/// The worker that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskingRow {
    /// What it has.
    pub offer: OfferRow,
    /// Declared by what it runs.
    pub used_cpu_millis: u32,
    /// Declared by what it runs.
    pub used_memory_bytes: u64,
    /// Whether it is to be left alone.
    pub is_quarantined: bool,
}

pub(crate) fn small(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

pub(crate) fn large(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

impl Store {
    /// Stages that workers with this offer may run, of every project the most urgent and the oldest;
    /// those that one worker alone can run, if it is among `workers`. More where more slots are free.
    ///
    /// The cost grows with the projects that have ready stages, not with the stages that wait or have
    /// ended: projects are found by jumps over the index, and of each a few rows are read.
    pub async fn ready_stages(
        &self,
        offer: &OfferRow,
        workers: &[WorkerId],
        slots: u32,
    ) -> Result<Vec<ReadyRow>> {
        let urgent = int(slots.clamp(LEAST_CANDIDATES, MOST_CANDIDATES));
        let rows = sqlx::query!(
            r#"with recursive project as (
                   (select project from stage where state = 'ready' order by project limit 1)
                   union all
                   select (select s.project from stage s
                           where s.state = 'ready' and s.project > p.project
                           order by s.project limit 1)
                   from project p where p.project is not null),
               candidate as materialized (
                   select distinct on (c.id) c.* from project p cross join lateral (
                       (select s.* from stage s
                        where s.state = 'ready' and s.project = p.project and s.not_before <= now()
                          and s.platform = any($2) and s.labels <@ $3
                          and (s.only_worker is null or s.only_worker = any($1))
                          and ($4::int = 0 or s.cpu_millis <= $4) and ($5::bigint = 0 or s.memory_bytes <= $5)
                        order by s.priority desc, s.critical_millis desc, s.ready_at limit $6)
                       union all
                       (select s.* from stage s
                        where s.state = 'ready' and s.project = p.project and s.not_before <= now()
                          and s.platform = any($2) and s.labels <@ $3
                          and (s.only_worker is null or s.only_worker = any($1))
                          and ($4::int = 0 or s.cpu_millis <= $4) and ($5::bigint = 0 or s.memory_bytes <= $5)
                        order by s.ready_at limit $6 / 4)) c
                   where p.project is not null limit 2000)
               select s.id as "id!", s.build_id as "build_id!", s.project as "project!",
                      s.platform as "platform!", s.labels as "labels!",
                      s.cpu_millis as "cpu_millis!", s.memory_bytes as "memory_bytes!",
                      s.priority as "priority!", s.critical_millis as "critical_millis!",
                      s.base_bytes as "base_bytes!", s.base_chain, s.home_worker, s.only_worker,
                      (extract(epoch from now() - s.ready_at) * 1000)::bigint as "waiting!",
                      array(
                          (select w.id from worker w
                           where w.id = s.home_worker and not w.lost and not w.draining
                             and (w.quarantined_until is null or w.quarantined_until <= now())
                             -- It may not have said yet that its slot is free.
                             and (w.free_slots > 0
                                  or s.ready_at > now() - interval '500 milliseconds'))
                          union all
                          (select h.worker_id from (select h.worker_id from worker_chain h
                                                    where h.chain = s.base_chain limit 32) h
                           join worker w on w.id = h.worker_id
                           where w.free_slots > 0 and not w.lost and not w.draining
                             and (w.quarantined_until is null or w.quarantined_until <= now())
                           limit 2)) as "near!",
                      array(select a.worker_id from attempt a
                            where a.stage_id = s.id and a.outcome in ('failed', 'lost')) as "failed!"
               from candidate s"#,
            &uuids(workers),
            &offer.platforms,
            &offer.labels,
            int(offer.cpu_millis),
            bigint(offer.memory_bytes),
            i64::from(urgent),
        )
        .fetch_all(&self.hot)
        .await?;
        let ready = rows.into_iter().map(|row| ReadyRow {
            id: StageId(row.id),
            build: BuildId(row.build_id),
            project: row.project,
            needs: NeedsRow {
                platform: row.platform,
                labels: row.labels,
                cpu_millis: small(row.cpu_millis),
                memory_bytes: large(row.memory_bytes),
            },
            priority: row.priority,
            critical_millis: large(row.critical_millis),
            waiting_millis: large(row.waiting),
            base_bytes: large(row.base_bytes),
            base_chain: row.base_chain,
            home: row.home_worker.map(WorkerId),
            only: row.only_worker.map(WorkerId),
            near: row.near.into_iter().map(WorkerId).collect(),
            failed: row.failed.into_iter().map(WorkerId).collect(),
        });
        Ok(ready.collect())
    }

    /// Which of the workers have which of these stacks of layers: of each stack some, if many have it.
    pub async fn chain_holders(
        &self,
        chains: &[String],
        workers: &[WorkerId],
    ) -> Result<Vec<(String, WorkerId)>> {
        let rows = sqlx::query!(
            r#"select c.chain as "chain!", h.worker_id from unnest($1::text[]) c(chain)
               cross join lateral (select worker_id from worker_chain h
                                   where h.chain = c.chain and h.worker_id = any($2) limit 64) h"#,
            chains,
            &uuids(workers),
        )
        .fetch_all(&self.hot)
        .await?;
        Ok(rows.into_iter().map(|row| (row.chain, WorkerId(row.worker_id))).collect())
    }

    /// Workers that hold something that they are to drop.
    pub async fn workers_to_drop(&self) -> Result<Vec<WorkerId>> {
        let rows = sqlx::query_scalar!(
            r#"select distinct worker_id as "worker!" from stage
               where drop_reason is not null and state in ('running', 'parked')
                 and worker_id is not null"#
        )
        .fetch_all(&self.hot)
        .await?;
        Ok(rows.into_iter().map(WorkerId).collect())
    }

    /// Which of these slices are there, by stage and digest of the selector.
    pub async fn slices_there(
        &self,
        wishes: &[(StageId, String)],
    ) -> Result<BTreeSet<(StageId, String)>> {
        let stages: Vec<Uuid> = wishes.iter().map(|(stage, _)| stage.0).collect();
        let selectors: Vec<String> = wishes.iter().map(|(_, selector)| selector.clone()).collect();
        let rows = sqlx::query!(
            r#"select l.stage_id, l.selector from stage_slice l
               join unnest($1::uuid[], $2::text[]) w(stage, selector)
                 on w.stage = l.stage_id and w.selector = l.selector"#,
            &stages,
            &selectors,
        )
        .fetch_all(&self.hot)
        .await?;
        Ok(rows.into_iter().map(|row| (StageId(row.stage_id), row.selector)).collect())
    }

    /// What is known of a worker that asks.
    pub async fn asking_worker(&self, worker: WorkerId) -> Result<AskingRow> {
        let row = sqlx::query!(
            r#"select w.platforms, w.labels, w.cpu_millis, w.memory_bytes,
                      coalesce(w.quarantined_until > now(), false) as "quarantined!",
                      coalesce(sum(s.cpu_millis), 0) as "used_cpu!",
                      coalesce(sum(s.memory_bytes), 0)::bigint as "used_memory!"
               from worker w left join stage s on s.worker_id = w.id and s.state = 'running'
                    and s.done_at is null
               where w.id = $1 group by w.id"#,
            worker.0,
        )
        .fetch_optional(&self.pool)
        .await?
        .ok_or(StoreError::NotFound("worker"))?;
        Ok(AskingRow {
            offer: OfferRow {
                platforms: row.platforms,
                labels: row.labels,
                cpu_millis: small(row.cpu_millis),
                memory_bytes: large(row.memory_bytes),
            },
            used_cpu_millis: u32::try_from(row.used_cpu).unwrap_or(u32::MAX),
            used_memory_bytes: large(row.used_memory),
            is_quarantined: row.quarantined,
        })
    }

    /// Stages that hold a slot, by project.
    pub async fn running_by_project(&self) -> Result<Vec<(String, u32)>> {
        let rows = sqlx::query!(
            r#"select project, count(*) as "count!" from stage
               where state = 'running' and done_at is null group by project"#
        )
        .fetch_all(&self.pool)
        .await?;
        let count = |count: i64| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(rows.into_iter().map(|row| (row.project, count(row.count))).collect())
    }

    /// Live workers other than these that have a free slot: a few, or many.
    pub async fn other_idle_workers(&self, but: &[WorkerId]) -> Result<u32> {
        let count = sqlx::query_scalar!(
            r#"select count(*) as "count!" from (
                   select 1 from worker
                   where id not in (select unnest($1::uuid[])) and not lost and not draining
                     and free_slots > 0
                     and last_seen > now() - interval '10 seconds'
                     and (quarantined_until is null or quarantined_until <= now())
                   limit 16) few"#,
            &uuids(but),
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }
}

fn uuids(workers: &[WorkerId]) -> Vec<Uuid> {
    workers.iter().map(|worker| worker.0).collect()
}
