//! Single flight: stages with the same key run once, whatever build they are of.
//!
//! The stage that was there first is the *leader*: it runs as if it were alone. Later ones are
//! *attached* to it and end as it does. A leader whose build has ended goes on while others wait for
//! it, and so does all that it needs of its build.

use std::collections::BTreeMap;

use common::stage::{StageKind, StageState};
use common::{BuildId, Digest, Domain, StageId};
use serde_json::Value;
use uuid::Uuid;

use crate::build::drop_stages;
use crate::finish::{end_build_if_done, unlock_children};
use crate::plan::{NewPlan, NewStage};
use crate::{Result, Store, StoreError, write};

/// A stage that another one may be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) id: Uuid,
    pub(crate) is_done: bool,
}

/// What runs alike: the key, and the platform of the worker.
type Likeness = (String, String);

/// The stages that this build's may be attached to.
#[derive(Debug, Default)]
pub(crate) struct Leaders(BTreeMap<Likeness, Leader>);

fn likeness(stage: &NewStage) -> Option<Likeness> {
    let runs = matches!(stage.state, StageState::Ready | StageState::Waiting);
    let key = stage.key.filter(|_| runs && stage.kind == StageKind::Stage)?;
    Some((key.to_string(), stage.platform.to_string()))
}

impl Leaders {
    /// The leader of a stage, or none: then it is one itself from now on.
    pub(crate) fn of(&mut self, stage: &NewStage) -> Option<Leader> {
        let likeness = likeness(stage)?;
        if !stage.may_attach {
            return None;
        }
        if let Some(leader) = self.0.get(&likeness) {
            return Some(*leader);
        }
        self.0.insert(likeness, Leader { id: stage.id.0, is_done: false });
        None
    }
}

/// Finds what runs already, and keeps others from starting the same meanwhile: until the end of the
/// transaction these keys are this build's. Nobody is attached to what an untrusted build runs but
/// another one.
pub(crate) async fn find_leaders(
    connection: &mut sqlx::PgConnection,
    domain: &Domain,
    plan: &NewPlan,
) -> Result<Leaders> {
    let mut keys: Vec<String> =
        plan.stages.iter().filter_map(likeness).map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys.dedup();
    if keys.is_empty() {
        return Ok(Leaders::default());
    }
    // In one order, so that two builds cannot wait for each other.
    sqlx::query!(
        r#"select count(pg_advisory_xact_lock(hashtextextended($1 || ' ' || key, 1)))
           from (select key from unnest($2::text[]) key order by key) keys"#,
        domain.project.as_str(),
        &keys,
    )
    .fetch_one(&mut *connection)
    .await?;
    let first_keys: Vec<String> = plan.first_keys.iter().map(Digest::to_string).collect();
    let is_old = sqlx::query_scalar!(
        r#"select exists (select 1 from cache_record
                          where project = $1 and key = any($2) and (not untrusted or $3)) as "old!""#,
        domain.project.as_str(),
        &first_keys,
        domain.trust.is_untrusted(),
    )
    .fetch_one(&mut *connection)
    .await?;
    if is_old {
        return Err(StoreError::PlanIsOld);
    }
    let rows = sqlx::query!(
        r#"select id, key as "key!", platform, done_at is not null as "done!" from stage
           where project = $1 and key = any($2) and drop_reason is null
             and state in ('waiting', 'ready', 'running', 'parked') and (not untrusted or $3)
           order by id for update"#,
        domain.project.as_str(),
        &keys,
        domain.trust.is_untrusted(),
    )
    .fetch_all(connection)
    .await?;
    let mut leaders = Leaders::default();
    for row in rows {
        let leader = Leader { id: row.id, is_done: row.done };
        leaders.0.entry((row.key, row.platform)).or_insert(leader);
    }
    Ok(leaders)
}

/// Brings what the leader has made already to a new follower, and asks it for what else is wanted,
/// if it has not begun.
pub(crate) async fn attach(
    connection: &mut sqlx::PgConnection,
    stage: &NewStage,
    leader: Leader,
) -> Result<()> {
    sqlx::query!(
        r#"update stage l set priority = greatest(l.priority, $2),
                  critical_millis = greatest(l.critical_millis, $3)
           where l.id = $1 and l.state in ('waiting', 'ready')
             and (l.priority < $2 or l.critical_millis < $3)"#,
        leader.id,
        stage.placing.priority,
        crate::bigint(stage.placing.critical_millis),
    )
    .execute(&mut *connection)
    .await?;
    if !stage.make_slices.is_empty() {
        sqlx::query!(
            r#"update stage_detail d
               set make_slices = (select jsonb_agg(distinct slice)
                                  from jsonb_array_elements(d.make_slices || $2) slice)
               from stage l
               where l.id = $1 and d.stage_id = l.id and l.state in ('waiting', 'ready')"#,
            leader.id,
            write("slices", &stage.make_slices)?,
        )
        .execute(&mut *connection)
        .await?;
    }
    copy_slices(connection, leader.id, stage.id.0).await
}

async fn copy_slices(connection: &mut sqlx::PgConnection, from: Uuid, to: Uuid) -> Result<()> {
    sqlx::query!(
        r#"insert into stage_slice (stage_id, selector, paths, manifest, inline_manifest, files,
                                    content_bytes, stored_bytes, content)
           select $2, selector, paths, manifest, inline_manifest, files, content_bytes, stored_bytes,
                  content
           from stage_slice where stage_id = $1 on conflict do nothing"#,
        from,
        to,
    )
    .execute(connection)
    .await?;
    Ok(())
}

struct Follower {
    id: Uuid,
    build: Uuid,
}

async fn followers(connection: &mut sqlx::PgConnection, leader: Uuid) -> Result<Vec<Follower>> {
    Ok(sqlx::query_as!(
        Follower,
        r#"select id, build_id as build from stage where attached_to = $1 and state = 'attached'
           order by id for update"#,
        leader,
    )
    .fetch_all(connection)
    .await?)
}

/// A leader has a new slice: its followers have it too. Returns their builds.
pub(crate) async fn share_slices(
    connection: &mut sqlx::PgConnection,
    leader: StageId,
) -> Result<Vec<BuildId>> {
    let mut builds = Vec::new();
    for follower in followers(connection, leader.0).await? {
        copy_slices(connection, leader.0, follower.id).await?;
        builds.push(BuildId(follower.build));
    }
    Ok(builds)
}

/// The steps of a leader have ended: those of its followers have, too. Returns their builds.
pub(crate) async fn share_done(
    connection: &mut sqlx::PgConnection,
    leader: StageId,
) -> Result<Vec<BuildId>> {
    let builds = sqlx::query_scalar!(
        r#"update stage set done_at = now()
           where attached_to = $1 and state = 'attached' and done_at is null returning build_id"#,
        leader.0,
    )
    .fetch_all(&mut *connection)
    .await?;
    for build in &builds {
        end_build_if_done(connection, *build).await?;
    }
    Ok(builds.into_iter().map(BuildId).collect())
}

/// What the success of a leader meant for its followers.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Their builds.
    pub(crate) builds: Vec<BuildId>,
    /// Exports that have become ready.
    pub(crate) exports: Vec<StageId>,
}

/// A leader has succeeded: so have its followers; one that lacks slices makes them.
pub(crate) async fn share_success(
    connection: &mut sqlx::PgConnection,
    leader: StageId,
) -> Result<Shared> {
    let mut shared = Shared::default();
    for follower in followers(connection, leader.0).await? {
        copy_slices(connection, leader.0, follower.id).await?;
        sqlx::query!(
            r#"update step t set state = l.state, timing = l.timing, settled = true,
                      content_key = l.content_key
               from step l
               where t.stage_id = $2 and l.stage_id = $1 and l.key = t.key
                 and l.state in ('done', 'cached') and t.state <> 'cached'"#,
            leader.0,
            follower.id,
        )
        .execute(&mut *connection)
        .await?;
        let missing = sqlx::query_scalar!(
            r#"update stage_detail d set layers = l.layers, timing = l.timing,
                      transfers = l.transfers, uploaded_bytes = 0
               from stage_detail l where d.stage_id = $2 and l.stage_id = $1
               returning jsonb_array_length(d.make_slices)
                         > (select count(*) from stage_slice where stage_id = $2) as "missing!""#,
            leader.0,
            follower.id,
        )
        .fetch_one(&mut *connection)
        .await?;
        if missing {
            make_rest(connection, leader.0, follower.id).await?;
        } else {
            sqlx::query!(
                r#"update stage f set state = 'succeeded', ended_at = now(),
                          started_at = l.started_at, worker_id = l.worker_id
                   from stage l where f.id = $2 and l.id = $1"#,
                leader.0,
                follower.id,
            )
            .execute(&mut *connection)
            .await?;
            shared.exports.extend(unlock_children(connection, &[follower.id]).await?);
            end_build_if_done(connection, follower.build).await?;
        }
        shared.builds.push(BuildId(follower.build));
    }
    Ok(shared)
}

/// A follower wants slices that its leader was not asked for: it runs, and only makes them.
async fn make_rest(
    connection: &mut sqlx::PgConnection,
    leader: Uuid,
    follower: Uuid,
) -> Result<()> {
    sqlx::query!(
        r#"update stage_detail set base_layers = layers, layers = null, first_step = 100000
           where stage_id = $1"#,
        follower,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        r#"update stage f set state = 'ready', ready_at = now(), home_worker = l.worker_id
           from stage l where f.id = $2 and l.id = $1"#,
        leader,
        follower,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A leader has failed for good: its followers fail alike. Returns their builds.
pub(crate) async fn share_failure(
    connection: &mut sqlx::PgConnection,
    leader: StageId,
    failure: &Value,
) -> Result<Vec<BuildId>> {
    let mut builds = Vec::new();
    for follower in followers(connection, leader.0).await? {
        sqlx::query!(
            "update stage set state = 'failed', ended_at = now() where id = $1",
            follower.id,
        )
        .execute(&mut *connection)
        .await?;
        sqlx::query!(
            "update stage_detail set failure = $2 where stage_id = $1",
            follower.id,
            failure,
        )
        .execute(&mut *connection)
        .await?;
        let ended = sqlx::query!(
            r#"update build set state = 'failed', failure = $2, ended_at = now()
               where id = $1 and state = 'running'"#,
            follower.build,
            failure,
        )
        .execute(&mut *connection)
        .await?;
        if ended.rows_affected() == 1 {
            Box::pin(drop_stages(connection, follower.build, "build_failed")).await?;
        }
        builds.push(BuildId(follower.build));
    }
    Ok(builds)
}

/// What has failed was kept for other builds after its own had ended: those cannot get what they
/// wait for. Returns them.
pub(crate) async fn fail_kept(
    connection: &mut sqlx::PgConnection,
    build: Uuid,
    failure: &Value,
) -> Result<Vec<BuildId>> {
    let kept = sqlx::query_scalar!(
        r#"select id from stage
           where build_id = $1 and state in ('waiting', 'ready', 'running', 'parked')
           order by id"#,
        build,
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut builds = Vec::new();
    for stage in kept {
        builds.extend(share_failure(connection, StageId(stage), failure).await?);
    }
    Box::pin(drop_stages(connection, build, "build_failed")).await?;
    Ok(builds)
}

/// Stages of a build that others wait for, and all that those need of it.
pub(crate) async fn wanted_by_others(
    connection: &mut sqlx::PgConnection,
    build: Uuid,
) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar!(
        r#"with recursive kept as (
               select s.id from stage s
               where s.build_id = $1 and s.state in ('waiting', 'ready', 'running', 'parked')
                 and exists (select 1 from stage f
                             where f.attached_to = s.id and f.state = 'attached'
                               and f.build_id <> $1)
               union
               select p.id from kept k join stage_edge e on e.consumer = k.id
                    join stage p on p.id = e.producer
               where p.state in ('waiting', 'ready', 'running', 'parked', 'attached'))
           select id as "id!" from kept"#,
        build,
    )
    .fetch_all(connection)
    .await?)
}

impl Store {
    /// Which of the stages' keys are being run, by whatever build.
    pub async fn running_keys(&self, domain: &Domain, keys: &[Digest]) -> Result<Vec<Digest>> {
        let keys: Vec<String> = keys.iter().map(Digest::to_string).collect();
        let rows = sqlx::query_scalar!(
            r#"select distinct key as "key!" from stage
               where project = $1 and key = any($2) and drop_reason is null
                 and state in ('waiting', 'ready', 'running', 'parked') and (not untrusted or $3)"#,
            domain.project.as_str(),
            &keys,
            domain.trust.is_untrusted(),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.iter().filter_map(|key| key.parse().ok()).collect())
    }

    /// Which of the steps' keys have been run just now, with a layer that is still on its way to the
    /// object store.
    pub async fn unsettled_keys(&self, domain: &Domain, keys: &[Digest]) -> Result<Vec<Digest>> {
        let keys: Vec<String> = keys.iter().map(Digest::to_string).collect();
        let rows = sqlx::query_scalar!(
            r#"select distinct t.key from step t join stage s on s.id = t.stage_id
               where t.key = any($2) and t.state = 'done' and not t.settled and s.project = $1
                 and s.state in ('running', 'parked') and s.drop_reason is null
                 and (not s.untrusted or $3)"#,
            domain.project.as_str(),
            &keys,
            domain.trust.is_untrusted(),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.iter().filter_map(|key| key.parse().ok()).collect())
    }
}
