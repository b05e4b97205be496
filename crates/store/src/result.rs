//! What workers report: steps, slices, results. Every write is guarded by the lease.

use std::collections::BTreeMap;

use common::image::{Layer, LayerOrigin};
use common::outcome::{Failure, FailureClass};
use common::{BuildId, Digest, Lease, ProjectName, StageId};
use serde_json::Value;
use uuid::Uuid;

use crate::build::drop_stages;
use crate::cache::CachedSlice;
use crate::finish::{end_build_if_done, lock_builds};
use crate::flight::{fail_kept, share_done, share_failure, share_slices, wanted_by_others};
use crate::object::{ObjectKey, ObjectRow, add_parts, mark};
use crate::plan::insert_slice;
use crate::{Result, Store, StoreError, bigint, int, write};

/// Attempts of a stage before a failure of the farm is the build's.
const MAX_ATTEMPTS: i32 = 3;

/// How a stage ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Well.
    Succeeded {
        /// Its layers.
        layers: Vec<Layer>,
        /// What an export made.
        exports: Vec<NewExport>,
    },
    /// Not.
    Failed {
        /// Why.
        failure: Failure,
        /// The step.
        step: Option<u32>,
        /// Whether another attempt may help.
        retry: bool,
    },
    /// The worker gives it back.
    HandedBack,
}

/// What an export made.
#[derive(Debug, Clone)]
pub struct NewExport {
    /// Position among the targets.
    pub target: u32,
    /// `image` or `oci`.
    pub kind: String,
    /// References.
    pub names: Vec<String>,
    /// References that were left at newer builds, as the API gives them.
    pub left_names: Value,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Digest of the configuration.
    pub config_digest: Digest,
    /// The archive and its length.
    pub archive: Option<(Digest, u64)>,
}

/// The end of a stage, to store.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Who says so.
    pub lease: Lease,
    /// How it ended.
    pub outcome: Outcome,
    /// What it took.
    pub spent: Spent,
}

/// What storing a result came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resulted {
    /// It counts: for its build, which comes first, and for those that shared the run.
    Recorded(Vec<BuildId>),
    /// It was stored before.
    Repeated(BuildId),
}

impl Resulted {
    /// The builds that it is of; its own comes first.
    pub fn builds(&self) -> &[BuildId] {
        match self {
            Self::Recorded(builds) => builds,
            Self::Repeated(build) => std::slice::from_ref(build),
        }
    }
}

/// Where the time of an attempt went, and what it moved.
#[derive(Debug, Clone)]
pub struct Spent {
    /// Where its time went.
    pub timing: Value,
    /// What it read from others.
    pub transfers: Value,
    /// What it sent.
    pub uploaded_bytes: u64,
    /// Milliseconds that it worked, without waiting: what the next prediction is made from.
    pub millis: u64,
}

/// Where a step stands.
#[derive(Debug, Clone, PartialEq)]
pub struct StepNews {
    /// Its number.
    pub number: u32,
    /// `running`, `done` or `failed`.
    pub state: &'static str,
    /// Where its time went so far.
    pub timing: Value,
    /// Its layer, once that is in the object store.
    pub layer: Option<Layer>,
}

struct Locked {
    build: Uuid,
    state: String,
    attempts: i32,
}

impl Store {
    /// Where steps of a held stage stand, each once; its layer is set once it is in the object store and
    /// then makes a cache record. Returns the builds that show them.
    pub async fn report_steps(&self, lease: Lease, steps: &[StepNews]) -> Result<Vec<BuildId>> {
        let mut transaction = self.begin().await?;
        let stage = sqlx::query!(
            r#"select build_id, project, untrusted,
                      array(select f.build_id from stage f where f.attached_to = s.id) as "others!"
               from stage s
               where id = $1 and epoch = $2 and state in ('running', 'parked') for share of s"#,
            lease.stage.0,
            lease.epoch.0,
        )
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or(StoreError::StaleLease)?;
        let numbers: Vec<i32> = steps.iter().map(|step| int(step.number)).collect();
        let states: Vec<String> = steps.iter().map(|step| step.state.to_owned()).collect();
        let timings: Vec<Value> = steps.iter().map(|step| step.timing.clone()).collect();
        let stored: Vec<bool> = steps.iter().map(|step| step.layer.is_some()).collect();
        let keys = sqlx::query!(
            r#"update step t set timing = n.timing, settled = t.settled or n.stored,
                      state = case when t.state = 'done' and n.state = 'running' then t.state
                              else n.state end
               from unnest($2::int[], $3::text[], $4::jsonb[], $5::bool[])
                    n(number, state, timing, stored)
               where t.stage_id = $1 and t.number = n.number
               returning t.number, t.key, t.content_key"#,
            lease.stage.0,
            &numbers,
            &states,
            &timings,
            &stored,
        )
        .fetch_all(&mut *transaction)
        .await?;
        if keys.len() != steps.len() {
            return Err(StoreError::NotFound("step"));
        }
        let (mut objects, mut records) = (Vec::new(), BTreeMap::new());
        for step in steps {
            let Some(layer) = &step.layer else { continue };
            if layer.origin == LayerOrigin::Farm {
                let key = ObjectKey { kind: "blob", digest: layer.blob };
                objects.push(ObjectRow { key, size_bytes: layer.size_bytes });
            }
            for row in keys.iter().filter(|row| row.number == int(step.number)) {
                let record = (write("layer", layer)?, row.content_key.clone());
                for key in row.content_key.iter().chain([&row.key]) {
                    records.insert(key.clone(), record.clone());
                }
            }
        }
        if !objects.is_empty() {
            mark(&mut transaction, &stage.project, &objects).await?;
        }
        let (keys, records): (Vec<String>, Vec<_>) = records.into_iter().unzip();
        let (layers, content_keys): (Vec<Value>, Vec<_>) = records.into_iter().unzip();
        if !keys.is_empty() {
            sqlx::query!(
                r#"insert into cache_record (project, untrusted, key, layer, content_key)
                   select $1, $2, r.key, r.layer, r.content_key
                   from unnest($3::text[], $4::jsonb[], $5::text[]) r(key, layer, content_key)
                   order by r.key
                   on conflict (project, key, untrusted)
                   do update set layer = excluded.layer, last_used = now(),
                       content_key = excluded.content_key,
                       created_at = case when cache_record.layer = excluded.layer
                                    then cache_record.created_at else now() end"#,
                stage.project,
                stage.untrusted,
                &keys,
                &layers,
                &content_keys as &[Option<String>],
            )
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        let builds = std::iter::once(stage.build_id).chain(stage.others);
        Ok(builds.map(BuildId).collect())
    }

    /// A slice is in the object store, `objects` are its manifest and packs: for this build at once,
    /// for others from the cache.
    pub async fn report_slice(
        &self,
        lease: Lease,
        stage_key: Digest,
        slice: &CachedSlice,
        objects: &[ObjectRow],
    ) -> Result<Vec<BuildId>> {
        let mut transaction = self.begin().await?;
        let stage = sqlx::query!(
            r#"select build_id, project, untrusted from stage
               where id = $1 and epoch = $2 and state in ('running', 'parked') for share"#,
            lease.stage.0,
            lease.epoch.0,
        )
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or(StoreError::StaleLease)?;
        mark(&mut transaction, &stage.project, objects).await?;
        let packs = objects.iter().filter(|object| object.key.kind == "pack");
        let packs: Vec<Digest> = packs.map(|object| object.key.digest).collect();
        add_parts(&mut transaction, &stage.project, &slice.manifest, &packs).await?;
        insert_slice(&mut transaction, lease.stage, slice).await?;
        let mut builds = vec![BuildId(stage.build_id)];
        builds.extend(share_slices(&mut transaction, lease.stage).await?);
        sqlx::query!(
            r#"insert into cache_slice (project, stage_key, selector, paths, manifest,
                                        inline_manifest, files, content_bytes, stored_bytes, content,
                                        untrusted)
               select $1, key, $3, $4, $5, $6, $7, $8, $9, $10, $12
               from (select $2 as key union
                     -- Under the content key of the last step, too.
                     (select last.content_key
                      from (select content_key from step where stage_id = $11
                            order by number desc limit 1) last
                      where last.content_key is not null)) keys
               order by key
               on conflict (project, stage_key, selector, untrusted) do update
               set manifest = excluded.manifest, inline_manifest = excluded.inline_manifest,
                   files = excluded.files, content_bytes = excluded.content_bytes,
                   stored_bytes = excluded.stored_bytes, content = excluded.content,
                   last_used = now()"#,
            stage.project,
            stage_key.to_string(),
            slice.selector.digest().to_string(),
            write("slice", &slice.selector.patterns())?,
            slice.manifest.to_string(),
            slice.inline_manifest,
            bigint(slice.files),
            bigint(slice.content_bytes),
            bigint(slice.stored_bytes),
            slice.content.map(|digest| digest.to_string()),
            lease.stage.0,
            stage.untrusted,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(builds)
    }

    /// The steps of a stage have ended and its slices are stored; layers follow. Who needs no more
    /// of it goes on, builds that wait for nothing else have succeeded. Returns the builds that this
    /// is news for.
    pub async fn stage_done(&self, lease: Lease, spent: &Spent) -> Result<Vec<BuildId>> {
        let mut transaction = self.begin().await?;
        lock_builds(&mut transaction, &[lease.stage.0]).await?;
        let stage = sqlx::query!(
            r#"select build_id, done_at is not null as "done!" from stage
               where id = $1 and epoch = $2 and state in ('running', 'parked') for update"#,
            lease.stage.0,
            lease.epoch.0,
        )
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or(StoreError::StaleLease)?;
        if stage.done {
            return Ok(Vec::new());
        }
        sqlx::query!("update stage set done_at = now() where id = $1", lease.stage.0)
            .execute(&mut *transaction)
            .await?;
        spend(&mut transaction, lease.stage, spent).await?;
        // What starts from it need not wait for its layers where it is unpacked.
        sqlx::query!(
            r#"with children as (
                   select c.id from stage c join stage_edge e on e.consumer = c.id
                   where e.producer = $1 and e.is_base and c.state = 'waiting' and c.kind = 'stage'
                   order by c.id for update of c)
               update stage c set state = 'ready', ready_at = now(), only_worker = p.worker_id,
                      home_worker = p.worker_id
               from children, stage p where c.id = children.id and p.id = $1"#,
            lease.stage.0,
        )
        .execute(&mut *transaction)
        .await?;
        end_build_if_done(&mut transaction, stage.build_id).await?;
        let mut builds = vec![BuildId(stage.build_id)];
        builds.extend(share_done(&mut transaction, lease.stage).await?);
        transaction.commit().await?;
        Ok(builds)
    }

    /// Stores the end of a stage and all that follows from it, in one transaction.
    pub async fn finish_stage(&self, finished: &Finished) -> Result<Resulted> {
        if matches!(finished.outcome, Outcome::Succeeded { .. }) {
            let mut done = self.finish_stages(std::slice::from_ref(finished)).await?;
            return done.results.pop().unwrap_or(Err(StoreError::NotFound("result")));
        }
        let lease = finished.lease;
        let mut transaction = self.begin().await?;
        lock_builds(&mut transaction, &[lease.stage.0]).await?;
        let stage = sqlx::query_as!(
            Locked,
            r#"select build_id as build, state, attempts
               from stage where id = $1 and epoch = $2 for update"#,
            lease.stage.0,
            lease.epoch.0,
        )
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or(StoreError::StaleLease)?;
        let build = BuildId(stage.build);
        if !matches!(stage.state.as_str(), "running" | "parked") {
            // The same result again, or one that came after the stage was given up.
            let same = matches!(
                (&finished.outcome, stage.state.as_str()),
                (Outcome::Failed { .. }, "failed" | "ready")
            );
            return if same { Ok(Resulted::Repeated(build)) } else { Err(StoreError::StaleLease) };
        }
        spend(&mut transaction, lease.stage, &finished.spent).await?;
        let mut builds = vec![build];
        if let Outcome::Failed { failure, step, retry } = &finished.outcome {
            if let Some(number) = step {
                sqlx::query!(
                    "update step set state = 'failed' where stage_id = $1 and number = $2",
                    lease.stage.0,
                    int(*number),
                )
                .execute(&mut *transaction)
                .await?;
            }
            builds.extend(fail(&mut transaction, lease, &stage, failure, *retry).await?);
        } else {
            end_attempt(&mut transaction, lease, "handed_back", None).await?;
            requeue(&mut transaction, lease.stage, 0.0, false).await?;
        }
        end_build_if_done(&mut transaction, stage.build).await?;
        transaction.commit().await?;
        Ok(Resulted::Recorded(builds))
    }

    /// A stage cannot be turned into a job: its build fails.
    pub async fn fail_stage(&self, lease: Lease, failure: &Failure) -> Result<Resulted> {
        let finished = Finished {
            lease,
            outcome: Outcome::Failed { failure: failure.clone(), step: None, retry: false },
            spent: Spent {
                timing: Value::Object(serde_json::Map::new()),
                transfers: Value::Array(Vec::new()),
                uploaded_bytes: 0,
                millis: 0,
            },
        };
        self.finish_stage(&finished).await
    }

    /// The project and key of a stage: what a slice of it is cached under.
    pub async fn stage_plan(&self, stage: StageId) -> Result<(ProjectName, Value)> {
        let row = sqlx::query!(
            r#"select s.project, d.plan from stage s join stage_detail d on d.stage_id = s.id
               where s.id = $1"#,
            stage.0,
        )
        .fetch_optional(&self.pool)
        .await?
        .ok_or(StoreError::NotFound("stage"))?;
        let project = row.project.parse().map_err(|_| StoreError::WrongState("project name"))?;
        Ok((project, row.plan))
    }
}

/// Stores what an export made; the same twice is fine.
pub(crate) async fn insert_exports(
    connection: &mut sqlx::PgConnection,
    stage: StageId,
    exports: &[NewExport],
) -> Result<()> {
    for export in exports {
        sqlx::query!(
            r#"insert into export_result (stage_id, target, kind, names, digest, config_digest,
                                          archive, archive_bytes, left_names)
               values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict do nothing"#,
            stage.0,
            int(export.target),
            export.kind,
            write("names", &export.names)?,
            export.digest.to_string(),
            export.config_digest.to_string(),
            export.archive.map(|(digest, _)| digest.to_string()),
            export.archive.map(|(_, size)| bigint(size)),
            export.left_names,
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// What an attempt took.
async fn spend(connection: &mut sqlx::PgConnection, stage: StageId, spent: &Spent) -> Result<()> {
    sqlx::query!(
        r#"update stage_detail set timing = $2, transfers = $3, uploaded_bytes = $4
           where stage_id = $1"#,
        stage.0,
        spent.timing,
        spent.transfers,
        bigint(spent.uploaded_bytes),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns the other builds that this ends.
async fn fail(
    connection: &mut sqlx::PgConnection,
    lease: Lease,
    stage: &Locked,
    failure: &Failure,
    retry: bool,
) -> Result<Vec<BuildId>> {
    let mut document = write("failure", failure)?;
    end_attempt(connection, lease, "failed", Some(&document)).await?;
    let mut retry = retry;
    if retry
        && failure.class == FailureClass::Infrastructure
        && failed_alike(connection, lease, failure).await?
    {
        // Two workers say the same: it is the stage, and a third one would say so too.
        retry = false;
        let hint = "it failed alike on two workers: the fault is likely the stage's own";
        document = write("failure", &failure.clone().with_hint(hint))?;
    }
    let runs = sqlx::query_scalar!(
        "select id from build where id = $1 and state = 'running' for update",
        stage.build,
    )
    .fetch_optional(&mut *connection)
    .await?
    .is_some();
    let is_wanted =
        runs || wanted_by_others(connection, stage.build).await?.contains(&lease.stage.0);
    if is_wanted && retry && stage.attempts < MAX_ATTEMPTS {
        let pause = f64::from(stage.attempts);
        requeue(connection, lease.stage, pause, true).await?;
        return Ok(Vec::new());
    }
    let cancelled = failure.class == FailureClass::Cancelled;
    sqlx::query!(
        "update stage set state = $2, ended_at = now() where id = $1",
        lease.stage.0,
        if cancelled { "cancelled" } else { "failed" },
    )
    .execute(&mut *connection)
    .await?;
    settle(connection, lease.stage, &document).await?;
    let mut others = share_failure(connection, lease.stage, &document).await?;
    if runs && !cancelled {
        sqlx::query!(
            r#"update build set state = 'failed', failure = $2, ended_at = now() where id = $1"#,
            stage.build,
            document,
        )
        .execute(&mut *connection)
        .await?;
        drop_stages(connection, stage.build, "build_failed").await?;
    } else if is_wanted && !runs {
        others.extend(fail_kept(connection, stage.build, &document).await?);
    } else if !runs {
        give_up_exports(connection, stage.build).await?;
    }
    Ok(others)
}

/// A stage has failed: no layer of it is on its way any more.
async fn settle(
    connection: &mut sqlx::PgConnection,
    stage: StageId,
    failure: &Value,
) -> Result<()> {
    sqlx::query!("update stage_detail set failure = $2 where stage_id = $1", stage.0, failure,)
        .execute(&mut *connection)
        .await?;
    sqlx::query!("update step set settled = true where stage_id = $1 and not settled", stage.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// What a build that has succeeded was to tell of its image cannot be told any more.
pub(crate) async fn give_up_exports(
    connection: &mut sqlx::PgConnection,
    build: Uuid,
) -> Result<()> {
    sqlx::query!(
        r#"update stage set state = 'skipped', ended_at = now()
           where build_id = $1 and kind = 'export' and not goal and state in ('waiting', 'ready')"#,
        build,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether the stage has failed in the same words on another worker.
pub(crate) async fn failed_alike(
    connection: &mut sqlx::PgConnection,
    lease: Lease,
    failure: &Failure,
) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"select exists (
               select 1 from attempt a join attempt o on o.stage_id = a.stage_id
               where a.stage_id = $1 and a.epoch = $2 and o.worker_id <> a.worker_id
                 and o.outcome = 'failed' and o.failure->>'code' = $3
                 and o.failure->>'message' = $4) as "alike!""#,
        lease.stage.0,
        lease.epoch.0,
        failure.code,
        failure.message,
    )
    .fetch_one(connection)
    .await?)
}

async fn end_attempt(
    connection: &mut sqlx::PgConnection,
    lease: Lease,
    outcome: &str,
    failure: Option<&Value>,
) -> Result<()> {
    sqlx::query!(
        r#"update attempt set ended_at = now(), outcome = $3, failure = $4
           where stage_id = $1 and epoch = $2"#,
        lease.stage.0,
        lease.epoch.0,
        outcome,
        failure,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Back to `ready`: for another worker, under the next epoch. What has started from its unpacked layers
/// alone waits again, and so does the stage itself where its own base is not stored.
pub(crate) async fn requeue(
    connection: &mut sqlx::PgConnection,
    stage: StageId,
    pause_secs: f64,
    counts: bool,
) -> Result<()> {
    sqlx::query!(
        r#"update stage s set ready_at = now(), worker_id = null, session = null,
                  state = case when exists (
                              select 1 from stage_edge e join stage p on p.id = e.producer
                              where e.consumer = s.id and e.is_base
                                and p.state not in ('succeeded', 'cached')) then 'waiting'
                          else 'ready' end,
                  only_worker = null, home_worker = null, done_at = null, not_before = now() + make_interval(secs => $2),
                  attempts = attempts - case when $3 then 0 else 1 end
           where id = $1"#,
        stage.0,
        pause_secs,
        counts,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        r#"update stage c set state = 'waiting', only_worker = null
           from stage_edge e
           where e.producer = $1 and e.is_base and c.id = e.consumer and c.state = 'ready'"#,
        stage.0,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        r#"update step set state = 'pending'
           where stage_id = $1 and (state in ('running', 'failed') or (state = 'done' and not settled))"#,
        stage.0,
    )
    .execute(connection)
    .await?;
    Ok(())
}
