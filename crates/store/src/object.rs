//! Objects of the blob store that are known to be there.

use std::collections::BTreeSet;

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

impl Store {
    /// Which of the objects are there; their last use is renewed in the same statement.
    pub async fn present_objects(
        &self,
        project: &ProjectName,
        keys: &[ObjectKey],
    ) -> Result<BTreeSet<(String, Digest)>> {
        let kinds: Vec<String> = keys.iter().map(|key| key.kind.to_owned()).collect();
        let digests: Vec<String> = keys.iter().map(|key| key.digest.to_string()).collect();
        let rows = sqlx::query!(
            r#"update object o set last_used = now()
               from unnest($2::text[], $3::text[]) as wanted(kind, digest)
               where o.project = $1 and o.kind = wanted.kind and o.digest = wanted.digest and o.present
               returning o.kind, o.digest"#,
            project.as_str(),
            &kinds,
            &digests,
        )
        .fetch_all(&self.pool)
        .await?;
        let found = rows.into_iter().filter_map(|row| Some((row.kind, row.digest.parse().ok()?)));
        Ok(found.collect())
    }

    /// Records that objects are there.
    pub async fn mark_present(&self, project: &ProjectName, objects: &[ObjectRow]) -> Result<()> {
        let kinds: Vec<String> = objects.iter().map(|object| object.key.kind.to_owned()).collect();
        let digests: Vec<String> =
            objects.iter().map(|object| object.key.digest.to_string()).collect();
        let sizes: Vec<i64> = objects.iter().map(|object| bigint(object.size_bytes)).collect();
        sqlx::query!(
            r#"insert into object (project, kind, digest, size_bytes, present)
               select distinct $1, kind, digest, size, true
               from unnest($2::text[], $3::text[], $4::bigint[]) as given(kind, digest, size)
               order by kind, digest
               on conflict (project, kind, digest)
               do update set present = true, last_used = now()"#,
            project.as_str(),
            &kinds,
            &digests,
            &sizes,
        )
        .execute(&self.pool)
        .await?;
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
