//! Reading builds and workers for people.

use common::outcome::LineRange;
use common::{BuildId, StageId, WorkerId};
use serde_json::Value;
use sqlx::types::time::OffsetDateTime;
use uuid::Uuid;

use crate::{Result, Store, StoreError};

/// A build.
#[derive(Debug, Clone)]
pub struct BuildRow {
    /// Its id.
    pub id: BuildId,
    /// Its project.
    pub project: String,
    /// Its state's name.
    pub state: String,
    /// Name of the Dockerfile.
    pub dockerfile: String,
    /// Target.
    pub target: Option<String>,
    /// Why it failed.
    pub failure: Option<Value>,
    /// Notices.
    pub warnings: Value,
    /// When it was accepted.
    pub created_at: OffsetDateTime,
    /// When it ended.
    pub ended_at: Option<OffsetDateTime>,
}

/// A stage.
#[derive(Debug, Clone)]
pub struct StageRow {
    /// Its id.
    pub id: StageId,
    /// Name for people.
    pub label: String,
    /// Its kind's name.
    pub kind: String,
    /// Its state's name.
    pub state: String,
    /// Name of the worker that holds or held it last.
    pub worker: Option<String>,
    /// How often it was taken.
    pub attempts: u32,
    /// What it reads.
    pub needs: Vec<StageId>,
    /// Where its time went.
    pub timing: Value,
    /// Milliseconds from ready to started, or to now.
    pub queue_millis: u64,
    /// What it read from others.
    pub transfers: Value,
    /// What it sent.
    pub uploaded_bytes: u64,
    /// When it was taken last.
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    pub ended_at: Option<OffsetDateTime>,
    /// Why it failed.
    pub failure: Option<Value>,
    /// Its steps.
    pub steps: Vec<StepRow>,
    /// Why no worker can run it.
    pub unplaceable: Option<String>,
    /// The stage that runs, or ran, in its place, and the build that this is of.
    pub attached_to: Option<(StageId, BuildId)>,
    /// Whether its steps have ended.
    pub is_done: bool,
}

/// A step.
#[derive(Debug, Clone)]
pub struct StepRow {
    /// Its number.
    pub number: u32,
    /// The instruction.
    pub display: String,
    /// Where it stands.
    pub lines: LineRange,
    /// Its state's name.
    pub state: String,
    /// Where its time went.
    pub timing: Value,
}

/// What an export made.
#[derive(Debug, Clone)]
pub struct ExportRow {
    /// `image` or `oci`.
    pub kind: String,
    /// References.
    pub names: Value,
    /// References that were left at newer builds.
    pub left_names: Value,
    /// Digest of the manifest.
    pub digest: String,
    /// Digest of the configuration.
    pub config_digest: String,
    /// The archive.
    pub archive: Option<String>,
    /// Its length.
    pub archive_bytes: Option<u64>,
}

/// A worker.
#[derive(Debug, Clone)]
pub struct WorkerRow {
    /// Its id.
    pub id: WorkerId,
    /// Its name.
    pub name: String,
    /// What it runs.
    pub platforms: Vec<String>,
    /// Its slots.
    pub slots: u32,
    /// Those that are free.
    pub free_slots: u32,
    /// Whether it takes no more work.
    pub draining: bool,
    /// Whether it was given up.
    pub lost: bool,
    /// Version of its program.
    pub version: String,
    /// Milliseconds since it called.
    pub last_seen_millis: u64,
    /// What stages may ask for.
    pub labels: Vec<String>,
    /// Processors in thousandths; 0 is not said.
    pub cpu_millis: u32,
    /// Memory; 0 is not said.
    pub memory_bytes: u64,
    /// Why it is left alone, and for how many seconds more.
    pub quarantine: Option<(String, u64)>,
}

/// Numbers for metrics.
#[derive(Debug, Clone, Default)]
pub struct QueueCounts {
    /// Stages by state's name, of builds that run.
    pub stages: Vec<(String, i64)>,
    /// Live workers.
    pub workers: i64,
    /// Their slots.
    pub slots: i64,
    /// Their free slots.
    pub free_slots: i64,
    /// Seconds that the oldest ready stage has waited.
    pub oldest_ready_secs: f64,
}

impl Store {
    /// One build.
    pub async fn build(&self, id: BuildId) -> Result<BuildRow> {
        let row = sqlx::query!(
            r#"select id, project, state, dockerfile, target, failure, warnings, created_at, ended_at
               from build where id = $1"#,
            id.0,
        )
        .fetch_optional(&self.pool)
        .await?
        .ok_or(StoreError::NotFound("build"))?;
        Ok(BuildRow {
            id: BuildId(row.id),
            project: row.project,
            state: row.state,
            dockerfile: row.dockerfile,
            target: row.target,
            failure: row.failure,
            warnings: row.warnings,
            created_at: row.created_at,
            ended_at: row.ended_at,
        })
    }

    /// Builds of some projects (none: of all), newest first, older than `before`.
    pub async fn builds(
        &self,
        projects: Option<&[String]>,
        before: Option<(OffsetDateTime, Uuid)>,
        limit: u32,
    ) -> Result<Vec<BuildRow>> {
        let rows = sqlx::query!(
            r#"select id, project, state, dockerfile, target, failure, warnings, created_at, ended_at
               from build
               where ($1::text[] is null or project = any($1))
                 and ($2::timestamptz is null or (created_at, id) < ($2, $3))
               order by created_at desc, id desc limit $4"#,
            projects,
            before.map(|(time, _)| time),
            before.map(|(_, id)| id),
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        let builds = rows.into_iter().map(|row| BuildRow {
            id: BuildId(row.id),
            project: row.project,
            state: row.state,
            dockerfile: row.dockerfile,
            target: row.target,
            failure: row.failure,
            warnings: row.warnings,
            created_at: row.created_at,
            ended_at: row.ended_at,
        });
        Ok(builds.collect())
    }

    /// The stages of a build with their steps, in order.
    pub async fn build_stages(&self, build: BuildId) -> Result<Vec<StageRow>> {
        let rows = sqlx::query!(
            r#"select s.id, d.label, s.kind, s.state, w.name as "worker?", s.attempts, d.timing,
                      d.transfers, d.uploaded_bytes, s.ended_at, d.failure, s.unplaceable_reason,
                      coalesce(s.started_at, l.started_at) as started_at,
                      l.id as "leader?", l.build_id as "leader_build?",
                      s.done_at is not null as "done!",
                      coalesce((extract(epoch from
                          coalesce(s.started_at, l.started_at, s.ended_at, now()) - s.ready_at) * 1000)::bigint, 0)
                          as "queue!",
                      (select coalesce(array_agg(e.producer), '{}') from stage_edge e
                       where e.consumer = s.id) as "needs!"
               from stage s join stage_detail d on d.stage_id = s.id
                    left join stage l on l.id = s.attached_to
                    left join worker w on w.id = coalesce(s.worker_id, l.worker_id)
               where s.build_id = $1 order by s.position"#,
            build.0,
        )
        .fetch_all(&self.pool)
        .await?;
        let steps = sqlx::query!(
            r#"select t.stage_id, t.number, t.display, t.line_start, t.line_end,
                      coalesce(l.state, t.state) as "state!", coalesce(l.timing, t.timing) as "timing!"
               from step t join stage s on s.id = t.stage_id
                    left join step l on s.state = 'attached' and t.state <> 'cached'
                                        and l.stage_id = s.attached_to and l.key = t.key
               where s.build_id = $1 order by t.stage_id, t.number"#,
            build.0,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut stages: Vec<StageRow> = rows
            .into_iter()
            .map(|row| StageRow {
                id: StageId(row.id),
                label: row.label,
                kind: row.kind,
                state: row.state,
                worker: row.worker,
                attempts: u32::try_from(row.attempts).unwrap_or(0),
                needs: row.needs.into_iter().map(StageId).collect(),
                timing: row.timing,
                queue_millis: u64::try_from(row.queue).unwrap_or(0),
                transfers: row.transfers,
                uploaded_bytes: u64::try_from(row.uploaded_bytes).unwrap_or(0),
                started_at: row.started_at,
                ended_at: row.ended_at,
                failure: row.failure,
                steps: Vec::new(),
                unplaceable: row.unplaceable_reason,
                attached_to: row.leader.map(StageId).zip(row.leader_build.map(BuildId)),
                is_done: row.done,
            })
            .collect();
        for step in steps {
            if let Some(stage) = stages.iter_mut().find(|stage| stage.id.0 == step.stage_id) {
                let line = |number: i32| u32::try_from(number).unwrap_or(0);
                stage.steps.push(StepRow {
                    number: line(step.number),
                    display: step.display,
                    lines: LineRange { start: line(step.line_start), end: line(step.line_end) },
                    state: step.state,
                    timing: step.timing,
                });
            }
        }
        Ok(stages)
    }

    /// What the exports of a build made.
    pub async fn build_exports(&self, build: BuildId) -> Result<Vec<ExportRow>> {
        let rows = sqlx::query!(
            r#"select r.kind, r.names, r.left_names, r.digest, r.config_digest,
                      case when o.delete_after is null then r.archive end as archive,
                      case when o.delete_after is null then r.archive_bytes end as archive_bytes
               from export_result r join stage s on s.id = r.stage_id
                    left join object o on o.project = s.project and o.kind = 'export'
                         and o.digest = r.archive
               where s.build_id = $1 order by s.position, r.target"#,
            build.0,
        )
        .fetch_all(&self.pool)
        .await?;
        let exports = rows.into_iter().map(|row| ExportRow {
            kind: row.kind,
            names: row.names,
            left_names: row.left_names,
            digest: row.digest,
            config_digest: row.config_digest,
            archive: row.archive,
            archive_bytes: row.archive_bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        });
        Ok(exports.collect())
    }

    /// Every worker that called in the last day.
    pub async fn workers(&self) -> Result<Vec<WorkerRow>> {
        let rows = sqlx::query!(
            r#"select id, name, platforms, slots, free_slots, draining, lost, version, labels,
                      cpu_millis, memory_bytes,
                      quarantine_reason,
                      ceil(extract(epoch from quarantined_until - now()))::bigint as quarantine_secs,
                      (extract(epoch from now() - last_seen) * 1000)::bigint as "age!"
               from worker where last_seen > now() - interval '1 day' order by name, id"#,
        )
        .fetch_all(&self.pool)
        .await?;
        let workers = rows.into_iter().map(|row| WorkerRow {
            id: WorkerId(row.id),
            name: row.name,
            platforms: row.platforms,
            slots: u32::try_from(row.slots).unwrap_or(0),
            free_slots: u32::try_from(row.free_slots).unwrap_or(0),
            draining: row.draining,
            lost: row.lost,
            version: row.version,
            last_seen_millis: u64::try_from(row.age).unwrap_or(0),
            labels: row.labels,
            cpu_millis: u32::try_from(row.cpu_millis).unwrap_or(0),
            memory_bytes: u64::try_from(row.memory_bytes).unwrap_or(0),
            quarantine: row
                .quarantine_secs
                .and_then(|secs| u64::try_from(secs).ok())
                .filter(|secs| *secs > 0)
                .map(|secs| (row.quarantine_reason.unwrap_or_default(), secs)),
        });
        Ok(workers.collect())
    }

    /// Numbers for metrics.
    pub async fn queue_counts(&self) -> Result<QueueCounts> {
        let stages = sqlx::query!(
            // Each part has an index of its own: the stages that have ended are not looked at.
            r#"select 'waiting' as "state!", count(*) as "count!" from stage where state = 'waiting'
               union all
               select 'ready', count(*) from stage where state = 'ready'
               union all
               select state, count(*) from stage where state in ('running', 'parked')
               group by state"#,
        )
        .fetch_all(&self.pool)
        .await?;
        let workers = sqlx::query!(
            r#"select count(*) as "count!", coalesce(sum(slots), 0) as "slots!",
                      coalesce(sum(free_slots), 0) as "free!"
               from worker where not lost and session is not null"#,
        )
        .fetch_one(&self.pool)
        .await?;
        let oldest = sqlx::query_scalar!(
            r#"select coalesce(extract(epoch from max(now() - ready_at)), 0)::float8 as "age!"
               from stage where state = 'ready'"#,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(QueueCounts {
            stages: stages.into_iter().map(|row| (row.state, row.count)).collect(),
            workers: workers.count,
            slots: workers.slots,
            free_slots: workers.free,
            oldest_ready_secs: oldest,
        })
    }
}
