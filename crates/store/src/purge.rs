//! Purge: the bytes of one build, for good.

use common::BuildId;

use crate::{Result, Store, StoreError, bigint};

/// What became of the wish to purge a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purged {
    /// Its bytes go.
    Done(PurgedBytes),
    /// It has not ended.
    Runs,
}

/// What a purge came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PurgedBytes {
    /// Records that the cache has forgotten.
    pub records: u64,
    /// Objects whose bytes go, and their bytes.
    pub objects: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Those of them that live builds may read: they go when these have ended.
    pub waiting: u64,
    /// Objects that stay, as kind and digest: other cached steps or contexts have the same bytes.
    pub kept: Vec<(String, String)>,
}

/// Objects that stay which are named.
const NAMED: i64 = 100;

impl Store {
    /// Makes the cache forget the layers and slices of a build that has ended, and strikes out all
    /// its objects that nothing else refers to, and its logs. Bytes go when the addresses have run
    /// out that may be about.
    pub async fn purge_build(&self, build: BuildId, hold_secs: f64) -> Result<Purged> {
        let mut transaction = self.begin().await?;
        let row = sqlx::query!(
            r#"select project, ended_at is not null as "ended!",
                      exists (select 1 from stage s where s.build_id = b.id
                                and s.state in ('waiting', 'ready', 'running', 'parked')) as "held!"
               from build b where id = $1 for update"#,
            build.0,
        )
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or(StoreError::NotFound("build"))?;
        if !row.ended || row.held {
            return Ok(Purged::Runs);
        }
        sqlx::query!(
            r#"update build set purged_at = coalesce(purged_at, now()),
                      logs_gone = logs_gone and purged_at is not null
               where id = $1"#,
            build.0,
        )
        .execute(&mut *transaction)
        .await?;
        // Objects before records, as everybody does who makes something refer to them.
        sqlx::query_scalar!(
            r#"select o.digest from object o
               where (o.project, o.kind, o.digest) in (
                   select project, kind, digest from build_object where build_id = $1
                   union all
                   select t.project, 'pack', t.pack
                   from build_object b join object_part t
                        on t.project = b.project and t.manifest = b.digest
                   where b.build_id = $1 and b.kind = 'manifest')
               order by o.kind, o.digest for update"#,
            build.0,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let records = sqlx::query_scalar!(
            r#"with layers as (
                   select key from cache_record
                   where project = $2 and key in (
                       select t.key from step t join stage s on s.id = t.stage_id
                       where s.build_id = $1
                       union
                       select t.content_key from step t join stage s on s.id = t.stage_id
                       where s.build_id = $1 and t.content_key is not null)
                   order by key for update),
               slices as (
                   select stage_key, selector from cache_slice
                   where project = $2 and manifest in (
                       select manifest from stage_slice l join stage s on s.id = l.stage_id
                       where s.build_id = $1)
                   order by stage_key, selector for update),
               gone_layers as (
                   delete from cache_record r using layers l
                   where r.project = $2 and r.key = l.key returning 1),
               gone_slices as (
                   delete from cache_slice c using slices l
                   where c.project = $2 and c.stage_key = l.stage_key and c.selector = l.selector
                   returning 1)
               select (select count(*) from gone_layers) + (select count(*) from gone_slices)
                   as "count!""#,
            build.0,
            row.project,
        )
        .fetch_one(&mut *transaction)
        .await?;
        let mut purged =
            PurgedBytes { records: records.try_into().unwrap_or(0), ..PurgedBytes::default() };
        strike(&mut transaction, build, hold_secs, &mut purged).await?;
        transaction.commit().await?;
        Ok(Purged::Done(purged))
    }
}

async fn strike(
    connection: &mut sqlx::PgConnection,
    build: BuildId,
    hold_secs: f64,
    purged: &mut PurgedBytes,
) -> Result<()> {
    let rows = sqlx::query!(
        r#"with own as materialized (
               select distinct project, kind, digest from build_object where build_id = $1
               union
               select s.project, 'export', r.archive from export_result r
                    join stage s on s.id = r.stage_id
               where s.build_id = $1 and r.archive is not null),
           packs as (
               select distinct t.project, 'pack' as kind, t.pack as digest
               from own join object_part t on t.project = own.project and t.manifest = own.digest
               where own.kind = 'manifest'),
           locked as (
               select o.project, o.kind, o.digest, o.size_bytes, o.last_used from object o
               where (o.project, o.kind, o.digest) in (
                   select project, kind, digest from own
                   union all select project, kind, digest from packs)
               order by o.kind, o.digest for update),
           verdict as (
               select l.*, exists (select 1 from cache_record r
                                   where l.kind = 'blob' and r.project = l.project
                                     and r.layer->>'blob' = l.digest)
                        or exists (select 1 from cache_slice s
                                   where l.kind = 'manifest' and s.project = l.project
                                     and s.manifest = l.digest)
                        or exists (select 1 from object_part t join object m
                                        on m.project = t.project and m.kind = 'manifest'
                                           and m.digest = t.manifest
                                   where l.kind = 'pack' and t.project = l.project
                                     and t.pack = l.digest and m.delete_after is null
                                     and t.manifest not in (select digest from own
                                                            where kind = 'manifest')) as stays
               from locked l),
           struck as (
               update object o
               set delete_after = greatest(now(), v.last_used + make_interval(secs => $2))
               from verdict v
               where o.project = v.project and o.kind = v.kind and o.digest = v.digest
                 and not v.stays)
           select kind, digest, size_bytes, stays as "stays!",
                  coalesce(last_used >= (select min(created_at) from live_build b
                                         where b.project = v.project)
                                        - make_interval(secs => $2), false) as "waits!"
           from verdict v"#,
        build.0,
        hold_secs,
    )
    .fetch_all(connection)
    .await?;
    for row in rows {
        if row.stays {
            if bigint(purged.kept.len()) < NAMED {
                purged.kept.push((row.kind, row.digest));
            }
        } else {
            purged.objects += 1;
            purged.bytes += u64::try_from(row.size_bytes).unwrap_or(0);
            purged.waiting += u64::from(row.waits);
        }
    }
    Ok(())
}
