//! Stages that have succeeded: many results in one transaction.

use std::collections::{BTreeSet, HashMap};

use common::image::Layer;
use common::{BuildId, StageId};
use serde_json::Value;
use uuid::Uuid;

use crate::flight::share_success;
use crate::history::chain_of;
use crate::result::{Finished, NewExport, Outcome, Resulted, insert_exports};
use crate::{Result, Store, StoreError, bigint, read, write};

/// What storing some results came to.
#[derive(Debug, Default)]
pub struct Finishes {
    /// One for each result, in their order.
    pub results: Vec<Result<Resulted>>,
    /// Exports that have become ready by that.
    pub exports: Vec<StageId>,
}

/// A result that counts, as it is stored.
#[derive(Default)]
struct Rows {
    stages: Vec<Uuid>,
    epochs: Vec<i64>,
    layers: Vec<Value>,
    timings: Vec<Value>,
    transfers: Vec<Value>,
    uploaded: Vec<i64>,
}

impl Store {
    /// Stores stages that have succeeded, and all that follows from it. Either all of it is stored or
    /// none; a result that comes too late is its sender's error alone.
    pub async fn finish_stages(&self, all: &[Finished]) -> Result<Finishes> {
        let stages: Vec<Uuid> = all.iter().map(|one| one.lease.stage.0).collect();
        let mut transaction = self.begin().await?;
        lock_builds(&mut transaction, &stages).await?;
        let found = sqlx::query!(
            r#"select id, epoch, build_id, state from stage where id = any($1)
               order by id for update"#,
            &stages,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let mut found: HashMap<Uuid, _> = found.into_iter().map(|row| (row.id, row)).collect();
        let (mut results, mut rows) = (Vec::new(), Rows::default());
        let mut exports: Vec<(StageId, &[NewExport])> = Vec::new();
        for one in all {
            let row = found.get_mut(&one.lease.stage.0);
            let Some(row) = row.filter(|row| row.epoch == one.lease.epoch.0) else {
                results.push(Err(StoreError::StaleLease));
                continue;
            };
            let Outcome::Succeeded { layers, exports: made } = &one.outcome else {
                return Err(StoreError::WrongState("result"));
            };
            let build = BuildId(row.build_id);
            results.push(match row.state.as_str() {
                "running" | "parked" => Ok(Resulted::Recorded(vec![build])),
                "succeeded" => Ok(Resulted::Repeated(build)),
                _ => Err(StoreError::StaleLease),
            });
            if matches!(results.last(), Some(Ok(Resulted::Recorded(_)))) {
                // The same result once more, in the same breath.
                row.state = "succeeded".to_owned();
                rows.add(one, layers)?;
                exports.push((one.lease.stage, made));
            }
        }
        rows.store(&mut transaction).await?;
        for (stage, made) in exports {
            insert_exports(&mut transaction, stage, made).await?;
        }
        let mut ready = Vec::new();
        let mut ended: BTreeSet<Uuid> = recorded(&results).map(|build| build.0).collect();
        for leader in led(&mut transaction, &rows.stages).await? {
            let shared = share_success(&mut transaction, StageId(leader)).await?;
            ended.extend(shared.builds.iter().map(|build| build.0));
            ready.extend(shared.exports);
            let place = all.iter().position(|one| one.lease.stage.0 == leader);
            if let Some(Ok(Resulted::Recorded(builds))) =
                place.and_then(|place| results.get_mut(place))
            {
                builds.extend(shared.builds);
            }
        }
        end_builds_if_done(&mut transaction, &ended.into_iter().collect::<Vec<_>>()).await?;
        // Last: from then on they wait for a worker.
        ready.extend(unlock_children(&mut transaction, &rows.stages).await?);
        transaction.commit().await?;
        Ok(Finishes { results, exports: ready })
    }
}

fn recorded(results: &[Result<Resulted>]) -> impl Iterator<Item = BuildId> {
    results.iter().filter_map(|result| match result {
        Ok(Resulted::Recorded(builds)) => builds.first().copied(),
        _ => None,
    })
}

impl Rows {
    fn add(&mut self, one: &Finished, layers: &[Layer]) -> Result<()> {
        self.stages.push(one.lease.stage.0);
        self.epochs.push(one.lease.epoch.0);
        self.layers.push(write("layers", &layers)?);
        self.timings.push(one.spent.timing.clone());
        self.transfers.push(one.spent.transfers.clone());
        self.uploaded.push(bigint(one.spent.uploaded_bytes));
        Ok(())
    }

    async fn store(&self, connection: &mut sqlx::PgConnection) -> Result<()> {
        sqlx::query!(
            r#"with done as (
                   select * from unnest($1::uuid[], $2::bigint[], $3::jsonb[], $4::jsonb[],
                                        $5::jsonb[], $6::bigint[])
                                 d(id, epoch, layers, timing, transfers, uploaded)),
               ended as (
                   update stage s set state = 'succeeded', ended_at = now()
                   from done d where s.id = d.id),
               attempted as (
                   update attempt a set ended_at = now(), outcome = 'succeeded', failure = null
                   from done d where a.stage_id = d.id and a.epoch = d.epoch)
               update stage_detail t set layers = d.layers, timing = d.timing,
                      transfers = d.transfers, uploaded_bytes = d.uploaded
               from done d where t.stage_id = d.id"#,
            &self.stages,
            &self.epochs,
            &self.layers,
            &self.timings,
            &self.transfers,
            &self.uploaded,
        )
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Those that others are attached to.
async fn led(connection: &mut sqlx::PgConnection, stages: &[Uuid]) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar!(
        r#"select distinct attached_to as "leader!" from stage
           where attached_to = any($1) and state = 'attached' order by 1"#,
        stages,
    )
    .fetch_all(connection)
    .await?)
}

/// Whoever is about to end stages ends their builds one after the other: two that end the last
/// stages of a build at once would each see the other's as running. Builds are locked before stages,
/// everywhere.
pub(crate) async fn lock_builds(
    connection: &mut sqlx::PgConnection,
    stages: &[Uuid],
) -> Result<()> {
    sqlx::query!(
        r#"select id from build
           where id in (select build_id from stage where id = any($1)
                        union
                        select build_id from stage
                        where attached_to = any($1) and state = 'attached')
           order by id for no key update"#,
        stages,
    )
    .fetch_all(connection)
    .await?;
    Ok(())
}

/// Stages that start from these may run, unless they wait for others too. Returns the exports among
/// them that have layers: what else there is to do without a worker hangs on that.
pub(crate) async fn unlock_children(
    connection: &mut sqlx::PgConnection,
    stages: &[Uuid],
) -> Result<Vec<StageId>> {
    let bases = sqlx::query!(
        r#"select d.stage_id, d.layers, s.worker_id
           from stage_detail d join stage s on s.id = d.stage_id
           where d.stage_id = any($1)
             and exists (select 1 from stage_edge e where e.producer = s.id and e.is_base)"#,
        stages,
    )
    .fetch_all(&mut *connection)
    .await?;
    if bases.is_empty() {
        return Ok(Vec::new());
    }
    let (mut ids, mut workers, mut chains, mut bytes) = (vec![], vec![], vec![], vec![]);
    for base in bases {
        let layers: Vec<Layer> =
            base.layers.map_or(Ok(Vec::new()), |layers| read("layers", layers))?;
        ids.push(base.stage_id);
        workers.push(base.worker_id);
        chains.push(chain_of(&layers));
        bytes.push(bigint(layers.iter().map(|layer| layer.size_bytes).sum::<u64>()));
    }
    // Locked in the order of ids: two bases that end at once cannot wait for each other. One that is
    // attached runs only if the stage that it is attached to fails to.
    let ready = sqlx::query_scalar!(
        r#"with base as (
               select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[])
                             b(id, worker, chain, bytes)),
           ended as (
               select e.consumer, count(*)::int as bases, max(b.bytes) as bytes,
                      (array_agg(b.worker order by b.bytes desc))[1] as worker,
                      (array_agg(b.chain order by b.bytes desc))[1] as chain
               from stage_edge e join base b on b.id = e.producer
               where e.is_base group by e.consumer),
           child as (
               select c.id from stage c join ended n on n.consumer = c.id
               where c.state in ('waiting', 'attached', 'ready', 'running', 'parked')
               order by c.id for update of c)
           update stage c set bases_missing = c.bases_missing - n.bases, home_worker = n.worker,
                  base_chain = n.chain, base_bytes = n.bytes, only_worker = null,
                  state = case when c.state = 'waiting' and c.bases_missing <= n.bases then 'ready'
                          else c.state end,
                  ready_at = case when c.state in ('waiting', 'attached')
                                       and c.bases_missing <= n.bases
                             then clock_timestamp() else c.ready_at end
           from child join ended n on n.consumer = child.id where c.id = child.id
           returning case when c.kind = 'export' and c.state = 'ready' and n.bytes > 0
                          then c.id end"#,
        &ids,
        &workers as &[Option<Uuid>],
        &chains as &[Option<String>],
        &bytes,
    )
    .fetch_all(connection)
    .await?;
    Ok(ready.into_iter().flatten().map(StageId).collect())
}

/// Ends a running build whose goals are reached: what it makes is made, the steps of the stages that
/// it shows have ended.
pub(crate) async fn end_build_if_done(
    connection: &mut sqlx::PgConnection,
    build: Uuid,
) -> Result<()> {
    end_builds_if_done(connection, &[build]).await
}

async fn end_builds_if_done(connection: &mut sqlx::PgConnection, builds: &[Uuid]) -> Result<()> {
    sqlx::query!(
        r#"update build b set state = 'succeeded', ended_at = now()
           where b.id = any($1) and b.state = 'running' and not exists (
               select 1 from stage s where s.build_id = b.id and s.goal
                 and s.state not in ('succeeded', 'cached') and s.done_at is null)"#,
        builds,
    )
    .execute(connection)
    .await?;
    Ok(())
}
