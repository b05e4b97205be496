//! Objects of the blob store that are known to be there.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::{BuildId, Digest, Lease, ProjectName};

use crate::{Result, Store, StoreError, bigint};

/// Names an object within a project; the kind is `blob`, `pack`, `manifest` or `export`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: &'static str,
    /// Its digest.
    pub digest: Digest,
}

/// An object and its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRow {
    /// Which one.
    pub key: ObjectKey,
    /// Length in bytes.
    pub size_bytes: u64,
}

/// How long a call waits for a deletion of the same object to end.
const DELETION_LIMIT: Duration = Duration::from_secs(30);
/// How often it looks.
const DELETION_LOOK: Duration = Duration::from_millis(100);

impl Store {
    /// Which of the objects are there. In the same statement all of them are written down as used
    /// now, so that nothing deletes them: neither those that are there, nor what is sent next.
    pub async fn present_objects(
        &self,
        project: &ProjectName,
        objects: &[ObjectRow],
    ) -> Result<BTreeSet<(String, Digest)>> {
        let until = Instant::now() + DELETION_LIMIT;
        loop {
            let Some(present) = self.try_present(project, objects).await? else {
                if Instant::now() > until {
                    return Err(StoreError::Deleting);
                }
                tokio::time::sleep(DELETION_LOOK).await;
                continue;
            };
            return Ok(present);
        }
    }

    /// None while one of them is being deleted: what is sent now could go with it.
    async fn try_present(
        &self,
        project: &ProjectName,
        objects: &[ObjectRow],
    ) -> Result<Option<BTreeSet<(String, Digest)>>> {
        let (kinds, digests, sizes) = columns(objects);
        let rows = sqlx::query!(
            r#"insert into object as o (project, kind, digest, size_bytes)
               select distinct on (kind, digest) $1, kind, digest, size
               from unnest($2::text[], $3::text[], $4::bigint[]) as given(kind, digest, size)
               order by kind, digest
               on conflict (project, kind, digest) do update
               set last_used = now(),
                   delete_after = case when o.deleting_at is null then null else o.delete_after end
               returning kind, digest, present, deleting_at is not null as "deleting!""#,
            project.as_str(),
            &kinds,
            &digests,
            &sizes,
        )
        .fetch_all(&self.pool)
        .await?;
        if rows.iter().any(|row| row.deleting) {
            return Ok(None);
        }
        let found = rows.into_iter().filter(|row| row.present);
        let found = found.filter_map(|row| Some((row.kind, row.digest.parse().ok()?)));
        Ok(Some(found.collect()))
    }

    /// Records that objects are there; of a manifest with the packs that it names.
    pub async fn mark_present(
        &self,
        project: &ProjectName,
        objects: &[ObjectRow],
        parts: Option<(&Digest, &[Digest])>,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        mark(&mut transaction, project.as_str(), objects).await?;
        if let Some((manifest, packs)) = parts {
            add_parts(&mut transaction, project.as_str(), manifest, packs).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// The project and build that a live lease belongs to.
    pub async fn lease_scope(&self, lease: Lease) -> Result<(ProjectName, BuildId)> {
        let row = sqlx::query!(
            r#"select project, build_id from stage
               where id = $1 and epoch = $2 and state in ('running', 'parked')"#,
            lease.stage.0,
            lease.epoch.0,
        )
        .fetch_optional(&self.pool)
        .await?
        .ok_or(StoreError::StaleLease)?;
        let project = row.project.parse().map_err(|_| StoreError::WrongState("project name"))?;
        Ok((project, BuildId(row.build_id)))
    }
}

fn columns(objects: &[ObjectRow]) -> (Vec<String>, Vec<String>, Vec<i64>) {
    let kinds = objects.iter().map(|object| object.key.kind.to_owned()).collect();
    let digests = objects.iter().map(|object| object.key.digest.to_string()).collect();
    (kinds, digests, objects.iter().map(|object| bigint(object.size_bytes)).collect())
}

/// Records that objects are there, in the transaction that makes something refer to them: nothing
/// can strike them out in between.
pub(crate) async fn mark(
    connection: &mut sqlx::PgConnection,
    project: &str,
    objects: &[ObjectRow],
) -> Result<()> {
    let (kinds, digests, sizes) = columns(objects);
    let deleting = sqlx::query_scalar!(
        r#"with marked as (
               insert into object as o (project, kind, digest, size_bytes, present)
               select distinct on (kind, digest) $1, kind, digest, size, true
               from unnest($2::text[], $3::text[], $4::bigint[]) as given(kind, digest, size)
               order by kind, digest
               on conflict (project, kind, digest) do update
               set present = o.deleting_at is null, size_bytes = excluded.size_bytes,
                   last_used = now(),
                   delete_after = case when o.deleting_at is null then null
                                  else o.delete_after end
               returning deleting_at)
           select count(deleting_at) as "deleting!" from marked"#,
        project,
        &kinds,
        &digests,
        &sizes,
    )
    .fetch_one(connection)
    .await?;
    // Its bytes go: trying again would not bring them back.
    if deleting == 0 { Ok(()) } else { Err(StoreError::WrongState("object")) }
}

/// Writes down which packs a manifest names.
pub(crate) async fn add_parts(
    connection: &mut sqlx::PgConnection,
    project: &str,
    manifest: &Digest,
    packs: &[Digest],
) -> Result<()> {
    let packs: Vec<String> = packs.iter().map(Digest::to_string).collect();
    sqlx::query!(
        r#"insert into object_part (project, pack, manifest)
           select distinct $1, pack, $2 from unnest($3::text[]) pack order by pack
           on conflict do nothing"#,
        project,
        manifest.to_string(),
        &packs,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes down that all that a build refers to is in use. False when some of it is not there any
/// more; then the cache forgets whatever refers to that.
pub(crate) async fn renew_objects_of(
    connection: &mut sqlx::PgConnection,
    build: uuid::Uuid,
) -> Result<Vec<(String, String)>> {
    let rows = sqlx::query!(
        r#"with wanted as (
               select distinct project, kind, digest from build_object where build_id = $1),
           locked as (
               select o.project, o.kind, o.digest, o.present and o.deleting_at is null as is_there
               from object o join wanted using (project, kind, digest)
               order by o.kind, o.digest for update of o),
           renewed as (
               update object o set last_used = now(), delete_after = null
               from locked l
               where o.project = l.project and o.kind = l.kind and o.digest = l.digest
                 and l.is_there)
           select w.kind as "kind!", w.digest as "digest!"
           from wanted w left join locked l using (project, kind, digest)
           where l.is_there is not true"#,
        build,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.kind, row.digest)).collect())
}

impl Store {
    /// Strikes out of the cache what refers to objects that are not there.
    pub(crate) async fn forget_broken(
        &self,
        project: &str,
        missing: &[(String, String)],
    ) -> Result<()> {
        let digests: Vec<String> = missing.iter().map(|(_, digest)| digest.clone()).collect();
        sqlx::query!(
            "delete from cache_record where project = $1 and layer->>'blob' = any($2)",
            project,
            &digests,
        )
        .execute(&self.pool)
        .await?;
        sqlx::query!(
            "delete from cache_slice where project = $1 and manifest = any($2)",
            project,
            &digests,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
