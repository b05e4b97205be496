//! What is kept, and how long: the cache by last use and size, objects while something refers to
//! them, logs and builds by age.
//!
//! An object goes in two steps. It is *struck out* when nothing refers to it and nobody has used it
//! for a while; its bytes are *deleted* after a pause, unless somebody has wanted it meanwhile.
//! Three rules make that safe whatever runs at the same time:
//!
//! - Whoever comes to refer to an object writes its last use down in the same transaction, under the
//!   object's row lock: a plan, a report of a layer or slice, a negotiation of an upload. Steps of
//!   this module look at the last use under that lock.
//! - What was used since the oldest live build of the project began is left alone: no matter what
//!   that build was told, it was told after it began. `live_build` is who counts.
//! - What is being deleted is no more there for anybody, and nobody gets an address to write it
//!   until it is gone.
//!
//! Addresses to read and write are good for a while after they were made, and whoever makes one
//! writes a use down: so nothing goes that was used within `hold_secs`.

use uuid::Uuid;

use crate::{Result, Store, bigint};

/// Rows that one round looks at.
const ROUND: i64 = 500;
/// Objects that one round deletes: each is a request to the object store.
const DELETIONS: i64 = 200;
/// Builds that one round removes, with all that belongs to them.
const BUILDS: i64 = 20;

/// How long things are kept, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retention {
    /// Records of the cache after their last use.
    pub cache_secs: f64,
    /// Bytes of a project; 0 is as many as it makes.
    pub cache_bytes: u64,
    /// Objects that nothing refers to, such as the packs of contexts, after their last use.
    pub unused_secs: f64,
    /// Archives for clients after they were made.
    pub exports_secs: f64,
    /// Logs of builds that have ended.
    pub logs_secs: f64,
    /// Builds that have ended.
    pub builds_secs: f64,
    /// The pause between striking out and deleting.
    pub grace_secs: f64,
    /// Nothing goes that was used within this time: addresses may be about.
    pub hold_secs: f64,
    /// When an object that is still needed is looked at again.
    pub check_secs: f64,
}

/// An object whose bytes are to be deleted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    /// Its project.
    pub project: String,
    /// Its kind.
    pub kind: String,
    /// Its digest.
    pub digest: String,
}

/// What an operator has set for a project; none is the farm's setting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProjectSettings {
    /// Its part of the workers.
    pub weight: Option<u32>,
    /// Most bytes.
    pub cache_bytes: Option<u64>,
    /// How long its cache is kept.
    pub cache_secs: Option<u64>,
    /// How long its logs are kept.
    pub logs_secs: Option<u64>,
    /// How long its builds are kept.
    pub builds_secs: Option<u64>,
}

/// A project and what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectRow {
    /// Its name.
    pub name: String,
    /// What was set.
    pub settings: ProjectSettings,
    /// Bytes in the object store.
    pub used_bytes: u64,
    /// Objects.
    pub used_objects: u64,
    /// Bytes above what it may have.
    pub over_bytes: u64,
    /// Seconds since that was counted.
    pub measured_secs: Option<u64>,
}

impl Store {
    /// Whether this process is the one to do something for the next seconds.
    pub async fn take_duty(&self, name: &str, holder: Uuid, secs: f64) -> Result<bool> {
        let done = sqlx::query!(
            r#"insert into duty as d (name, holder, held_until)
               values ($1, $2, now() + make_interval(secs => $3))
               on conflict (name) do update
               set holder = excluded.holder, held_until = excluded.held_until
               where d.holder = excluded.holder or d.held_until < now()"#,
            name,
            holder,
            secs,
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Counts what each project has, and by how much that is too much.
    pub async fn measure_projects(&self, keep: &Retention) -> Result<()> {
        sqlx::query!(
            r#"insert into project as p (name, used_bytes, used_objects, over_bytes, measured_at)
               select u.project, u.bytes, u.objects,
                      case when $1::bigint > 0 then greatest(0, u.bytes - $1) else 0 end, now()
               from (select project, count(*) as objects, sum(size_bytes)::bigint as bytes
                     from object where delete_after is null and present
                     group by project order by project) u
               on conflict (name) do update
               set used_bytes = excluded.used_bytes, used_objects = excluded.used_objects,
                   measured_at = now(),
                   over_bytes = case when coalesce(p.cache_bytes, $1) > 0
                       then greatest(0, excluded.used_bytes - coalesce(p.cache_bytes, $1))
                       else 0 end"#,
            bigint(keep.cache_bytes),
        )
        .execute(&self.pool)
        .await?;
        // Those of which nothing is left.
        sqlx::query!(
            r#"update project p set used_bytes = 0, used_objects = 0, over_bytes = 0,
                      measured_at = now()
               where p.used_objects > 0
                 and not exists (select 1 from object o where o.project = p.name
                                   and o.delete_after is null and o.present)"#,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Strikes records out of the cache: those that nobody has used for long, and the oldest of
    /// projects that have too much. Returns how many.
    pub async fn trim_cache(&self, keep: &Retention) -> Result<usize> {
        let projects = sqlx::query!(
            r#"select name, over_bytes, coalesce(cache_secs::float8, $1) as "secs!"
               from project order by name"#,
            keep.cache_secs,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut struck = 0;
        for project in projects {
            struck += self.trim(&project.name, project.secs, i64::MAX, keep).await?;
            if project.over_bytes > 0 {
                struck += self.trim(&project.name, 0.0, project.over_bytes, keep).await?;
            }
        }
        Ok(struck)
    }

    /// Strikes out the oldest records of a project that are older than so many seconds, until they
    /// come to so many bytes. None that a live build may have been told of.
    async fn trim(
        &self,
        project: &str,
        age_secs: f64,
        bytes: i64,
        keep: &Retention,
    ) -> Result<usize> {
        let rows = sqlx::query!(
            r#"with bound as (
                   select least(now() - make_interval(secs => greatest($2::float8, $4::float8)),
                                min(created_at) - make_interval(secs => $4)) as before
                   from live_build where project = $1),
               layers as (
                   select key, last_used, (layer->>'size_bytes')::bigint as bytes
                   from cache_record, bound
                   where project = $1 and last_used < bound.before
                   order by last_used limit $5 for update of cache_record skip locked),
               slices as (
                   select stage_key, selector, last_used, stored_bytes as bytes
                   from cache_slice, bound
                   where project = $1 and last_used < bound.before
                   order by last_used limit $5 for update of cache_slice skip locked),
               oldest as (
                   select key, null as selector, last_used, bytes from layers
                   union all
                   select stage_key, selector, last_used, bytes from slices),
               chosen as (
                   select key, selector from (
                       select key, selector, sum(bytes) over (
                                  order by last_used, key, selector nulls first) - bytes as before
                       from oldest) summed
                   where before < $3::bigint),
               gone_layers as (
                   delete from cache_record r using chosen c
                   where r.project = $1 and r.key = c.key and c.selector is null
                   returning r.layer->>'blob' as digest),
               gone_slices as (
                   delete from cache_slice s using chosen c
                   where s.project = $1 and s.stage_key = c.key and s.selector = c.selector
                   returning s.manifest as digest)
               select 'blob' as "kind!", digest as "digest!" from gone_layers
               where digest is not null
               union all select 'manifest', digest from gone_slices"#,
            project,
            age_secs,
            bytes,
            keep.hold_secs,
            ROUND,
        )
        .fetch_all(&self.pool)
        .await?;
        let count = rows.len();
        let (kinds, digests): (Vec<String>, Vec<String>) =
            rows.into_iter().map(|row| (row.kind, row.digest)).unzip();
        self.check_soon(project, &kinds, &digests).await?;
        Ok(count)
    }

    /// The next round looks at these objects. A hint: others look at them sooner or later.
    async fn check_soon(&self, project: &str, kinds: &[String], digests: &[String]) -> Result<()> {
        sqlx::query!(
            r#"with those as (
                   select o.kind, o.digest
                   from object o join unnest($2::text[], $3::text[]) as given(kind, digest)
                        on o.kind = given.kind and o.digest = given.digest
                   where o.project = $1 and o.check_after > now()
                   for update of o skip locked)
               update object o set check_after = now() from those t
               where o.project = $1 and o.kind = t.kind and o.digest = t.digest"#,
            project,
            kinds,
            digests,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Strikes out objects that nothing refers to, among those whose turn it is. Returns how many
    /// it looked at, and how many it struck out.
    pub async fn strike_objects(&self, keep: &Retention) -> Result<(usize, usize)> {
        let row = sqlx::query!(
            r#"with due as materialized (
                   select project, kind, digest, last_used from object
                   where delete_after is null and check_after <= now()
                   order by check_after limit $1 for update skip locked),
               live as materialized (
                   select project, min(created_at) as since from live_build group by project),
               verdict as (
                   select d.project, d.kind, d.digest,
                          d.last_used < least(
                              now() - make_interval(secs => greatest($5::float8,
                                  case when d.kind = 'export' then $3::float8
                                       when p.over_bytes > 0 then 0 else $2::float8 end)),
                              l.since - make_interval(secs => $5))
                          and not exists (select 1 from cache_record r
                                          where d.kind = 'blob' and r.project = d.project
                                            and r.layer->>'blob' = d.digest)
                          and not exists (select 1 from cache_slice s
                                          where d.kind = 'manifest' and s.project = d.project
                                            and s.manifest = d.digest)
                          and not exists (select 1 from object_part t
                                          where d.kind = 'pack' and t.project = d.project
                                            and t.pack = d.digest) as strike
                   from due d left join live l on l.project = d.project
                        left join project p on p.name = d.project),
               done as (
                   update object o
                   set check_after = now() + make_interval(secs => $6),
                       delete_after = case when v.strike then now() + make_interval(secs => $4) end
                   from verdict v
                   where o.project = v.project and o.kind = v.kind and o.digest = v.digest
                   returning o.delete_after is not null as struck)
               select count(*) as "looked!", count(*) filter (where struck) as "struck!" from done"#,
            ROUND,
            keep.unused_secs,
            keep.exports_secs,
            keep.grace_secs,
            keep.hold_secs,
            keep.check_secs,
        )
        .fetch_one(&self.pool)
        .await?;
        let count = |count: i64| usize::try_from(count).unwrap_or(0);
        Ok((count(row.looked), count(row.struck)))
    }

    /// Takes struck objects whose pause is over: from now on nobody can have them back, and the
    /// caller deletes their bytes and then calls [`Store::forget_objects`]. Those that something
    /// refers to again, or that a live build may have been told of, have to wait.
    pub async fn take_doomed(&self, keep: &Retention) -> Result<Vec<Doomed>> {
        let rows = sqlx::query!(
            r#"with due as materialized (
                   select project, kind, digest, last_used, deleting_at from object
                   where delete_after <= now()
                     and (deleting_at is null or deleting_at < now() - interval '5 minutes')
                   order by delete_after limit $1 for update skip locked),
               live as materialized (
                   select project, min(created_at) as since from live_build group by project),
               verdict as (
                   select d.project, d.kind, d.digest,
                          d.deleting_at is not null or (
                          d.last_used < least(now(), l.since) - make_interval(secs => $2)
                          and not exists (select 1 from cache_record r
                                          where d.kind = 'blob' and r.project = d.project
                                            and r.layer->>'blob' = d.digest)
                          and not exists (select 1 from cache_slice s
                                          where d.kind = 'manifest' and s.project = d.project
                                            and s.manifest = d.digest)
                          and not exists (select 1 from object_part t
                                          where d.kind = 'pack' and t.project = d.project
                                            and t.pack = d.digest)) as goes
                   from due d left join live l on l.project = d.project),
               done as (
                   update object o
                   set deleting_at = case when v.goes then now() end,
                       present = o.present and not v.goes,
                       delete_after = case when v.goes then o.delete_after
                                      else now() + make_interval(secs => least($3::float8, 10)) end
                   from verdict v
                   where o.project = v.project and o.kind = v.kind and o.digest = v.digest
                   returning o.project, o.kind, o.digest, v.goes)
               select project, kind, digest from done where goes order by kind, digest"#,
            DELETIONS,
            keep.hold_secs,
            keep.check_secs,
        )
        .fetch_all(&self.pool)
        .await?;
        let doomed = |project, kind, digest| Doomed { project, kind, digest };
        Ok(rows.into_iter().map(|row| doomed(row.project, row.kind, row.digest)).collect())
    }

    /// The bytes of these objects are deleted.
    pub async fn forget_objects(&self, gone: &[Doomed]) -> Result<()> {
        let column = |of: fn(&Doomed) -> &String| gone.iter().map(of).cloned().collect::<Vec<_>>();
        let (projects, kinds, digests) =
            (column(|one| &one.project), column(|one| &one.kind), column(|one| &one.digest));
        sqlx::query!(
            r#"with those as (
                   select * from unnest($1::text[], $2::text[], $3::text[])
                       as given(project, kind, digest)),
               gone as (
                   delete from object o using those t
                   where o.project = t.project and o.kind = t.kind and o.digest = t.digest
                     and o.deleting_at is not null
                   returning o.project, o.kind, o.digest)
               delete from object_part p using gone g
               where g.kind = 'manifest' and p.project = g.project and p.manifest = g.digest"#,
            &projects,
            &kinds,
            &digests,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Log objects of builds whose time is up: purged ones at once. None when there are no more.
    pub async fn old_logs(&self, keep: &Retention) -> Result<Vec<String>> {
        let builds = sqlx::query_scalar!(
            r#"(select id as "id!" from build
                where purged_at is not null and not logs_gone order by purged_at limit $2)
               union
               (select b.id from build b left join project p on p.name = b.project
                where b.ended_at is not null and not b.logs_gone
                  and b.ended_at < now() - make_interval(secs => coalesce(p.logs_secs::float8, $1))
                order by b.ended_at limit $2)"#,
            keep.logs_secs,
            BUILDS,
        )
        .fetch_all(&self.pool)
        .await?;
        if builds.is_empty() {
            return Ok(Vec::new());
        }
        let objects = sqlx::query_scalar!(
            r#"select l.object from log_chunk l join stage s on s.id = l.stage_id
               where s.build_id = any($1) and s.state not in ('running', 'parked') limit $2"#,
            &builds,
            ROUND,
        )
        .fetch_all(&self.pool)
        .await?;
        sqlx::query!(
            r#"update build b set logs_gone = true
               where b.id = any($1)
                 and not exists (select 1 from stage s join log_chunk l on l.stage_id = s.id
                                 where s.build_id = b.id)
                 and not exists (select 1 from stage s where s.build_id = b.id
                                   and s.state in ('running', 'parked'))"#,
            &builds,
        )
        .execute(&self.pool)
        .await?;
        Ok(objects)
    }

    /// These log objects are deleted.
    pub async fn forget_logs(&self, objects: &[String]) -> Result<()> {
        sqlx::query!(
            r#"delete from log_chunk l using stage s
               where l.object = any($1) and s.id = l.stage_id
                 and l.stage_id = any(
                     select split_part(split_part(object, '/logs/', 2), '/', 1)::uuid
                     from unnest($1::text[]) object)"#,
            objects,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Removes builds whose time is up and whose logs are gone. Returns how many.
    pub async fn remove_old_builds(&self, keep: &Retention) -> Result<usize> {
        let done = sqlx::query!(
            r#"with old as (
                   select b.id from build b left join project p on p.name = b.project
                   where b.ended_at is not null and b.logs_gone
                     and b.ended_at
                         < now() - make_interval(secs => coalesce(p.builds_secs::float8, $1))
                     and not exists (select 1 from live_build l where l.id = b.id)
                   order by b.ended_at limit $2 for update of b skip locked)
               delete from build b using old where b.id = old.id"#,
            keep.builds_secs,
            BUILDS,
        )
        .execute(&self.pool)
        .await?;
        Ok(usize::try_from(done.rows_affected()).unwrap_or(0))
    }

    /// What projects have and what was set for them.
    pub async fn projects(&self) -> Result<Vec<ProjectRow>> {
        let rows = sqlx::query!(
            r#"select name, weight, cache_bytes, cache_secs, logs_secs, builds_secs, used_bytes,
                      used_objects, over_bytes,
                      extract(epoch from now() - measured_at)::bigint as measured_secs
               from project order by name"#,
        )
        .fetch_all(&self.pool)
        .await?;
        let large = |number: i64| u64::try_from(number).unwrap_or(0);
        let rows = rows.into_iter().map(|row| ProjectRow {
            name: row.name,
            settings: ProjectSettings {
                weight: row.weight.and_then(|weight| u32::try_from(weight).ok()),
                cache_bytes: row.cache_bytes.map(large),
                cache_secs: row.cache_secs.map(large),
                logs_secs: row.logs_secs.map(large),
                builds_secs: row.builds_secs.map(large),
            },
            used_bytes: large(row.used_bytes),
            used_objects: large(row.used_objects),
            over_bytes: large(row.over_bytes),
            measured_secs: row.measured_secs.map(large),
        });
        Ok(rows.collect())
    }

    /// Sets what is given for a project; the rest stays.
    pub async fn set_project(&self, name: &str, settings: &ProjectSettings) -> Result<()> {
        sqlx::query!(
            r#"insert into project as p (name, weight, cache_bytes, cache_secs, logs_secs, builds_secs)
               values ($1, $2, $3, $4, $5, $6)
               on conflict (name) do update
               set weight = coalesce(excluded.weight, p.weight),
                   cache_bytes = coalesce(excluded.cache_bytes, p.cache_bytes),
                   cache_secs = coalesce(excluded.cache_secs, p.cache_secs),
                   logs_secs = coalesce(excluded.logs_secs, p.logs_secs),
                   builds_secs = coalesce(excluded.builds_secs, p.builds_secs)"#,
            name,
            settings.weight.map(crate::int),
            settings.cache_bytes.map(bigint),
            settings.cache_secs.map(bigint),
            settings.logs_secs.map(bigint),
            settings.builds_secs.map(bigint),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The weights that were set.
    pub async fn weights(&self) -> Result<Vec<(String, u32)>> {
        let rows = sqlx::query!(
            r#"select name, weight as "weight!" from project where weight is not null"#
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.name, crate::ready::small(row.weight))).collect())
    }
}
