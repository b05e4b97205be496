//! Content keys: what has run before on the same files, whoever made them.

use std::collections::{BTreeMap, BTreeSet};

use common::image::{Layer, LayerOrigin};
use common::plan::SliceSelector;
use common::{Digest, Domain, Lease, StageId};
use serde_json::Value;
use uuid::Uuid;

use crate::cache::domain_of;
use crate::{Result, Store, StoreError, int, read, write};

/// What a held stage has, as far as content keys go.
#[derive(Debug, Clone)]
pub struct ContentFacts {
    /// Its trust domain.
    pub domain: Domain,
    /// What it is.
    pub plan: Value,
    /// Contents of the slices that it reads, by their stage and the digest of their selector.
    pub slices: BTreeMap<(StageId, String), Digest>,
    /// Content keys of its steps that are known and are other ones than their keys.
    pub known: BTreeMap<u32, Digest>,
    /// The slices that it is to make.
    pub make_slices: Vec<SliceSelector>,
}

/// What a look at the cache by content came to.
#[derive(Debug, Clone, Default)]
pub struct ContentFound {
    /// Content keys of steps that are other ones than their keys.
    pub keys: Vec<(u32, Digest)>,
    /// Steps that need not run, with their keys and layers.
    pub hits: Vec<(u32, Digest, Layer)>,
    /// Slices that need not be made: the key of the stage, its content key, their selectors.
    pub slices: Option<(Digest, Digest, Vec<SliceSelector>)>,
}

impl Store {
    /// What is known of a held stage.
    pub async fn content_facts(&self, lease: Lease) -> Result<ContentFacts> {
        let row = sqlx::query!(
            r#"select s.project, s.untrusted, d.plan, d.make_slices
               from stage s join stage_detail d on d.stage_id = s.id
               where s.id = $1 and s.epoch = $2 and s.state in ('running', 'parked')"#,
            lease.stage.0,
            lease.epoch.0,
        )
        .fetch_optional(&self.pool)
        .await?
        .ok_or(StoreError::StaleLease)?;
        let slices = sqlx::query!(
            r#"select l.stage_id, l.selector, l.content as "content!"
               from stage_edge e join stage_slice l on l.stage_id = e.producer
               where e.consumer = $1 and l.content is not null"#,
            lease.stage.0,
        )
        .fetch_all(&self.pool)
        .await?;
        let steps = sqlx::query!(
            r#"select number, content_key as "key!" from step
               where stage_id = $1 and content_key is not null"#,
            lease.stage.0,
        )
        .fetch_all(&self.pool)
        .await?;
        let slices = slices.into_iter().filter_map(|row| {
            Some(((StageId(row.stage_id), row.selector), row.content.parse().ok()?))
        });
        let known = steps
            .into_iter()
            .filter_map(|row| Some((u32::try_from(row.number).ok()?, row.key.parse().ok()?)));
        Ok(ContentFacts {
            domain: domain_of(&row.project, row.untrusted)?,
            plan: row.plan,
            slices: slices.collect(),
            known: known.collect(),
            make_slices: read("slices", row.make_slices)?,
        })
    }

    /// The content key that the layer of a key was stored under, where it is another one.
    pub async fn content_key_of(&self, domain: &Domain, key: &Digest) -> Result<Option<Digest>> {
        let found = sqlx::query_scalar!(
            r#"select content_key from cache_record
               where project = $1 and key = $2 and (not untrusted or $3)
               order by untrusted limit 1"#,
            domain.project.as_str(),
            key.to_string(),
            domain.trust.is_untrusted(),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(found.flatten().and_then(|key| key.parse().ok()))
    }

    /// The content key of the last step of a stage of this build, where it is another one than its key.
    pub async fn last_content_key(&self, stage: StageId) -> Result<Option<Digest>> {
        let found = sqlx::query_scalar!(
            "select content_key from step where stage_id = $1 order by number desc limit 1",
            stage.0,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(found.flatten().and_then(|key| key.parse().ok()))
    }

    /// Writes down what was found for a held stage: its steps are cached, under their keys too, and
    /// the slices are its own. Returns the slices.
    pub async fn save_found(
        &self,
        lease: Lease,
        found: &ContentFound,
    ) -> Result<Vec<SliceSelector>> {
        let mut transaction = self.begin().await?;
        let stage = sqlx::query!(
            r#"select project, untrusted from stage
               where id = $1 and epoch = $2 and state in ('running', 'parked') for update"#,
            lease.stage.0,
            lease.epoch.0,
        )
        .fetch_optional(&mut *transaction)
        .await?
        .ok_or(StoreError::StaleLease)?;
        let (numbers, keys): (Vec<i32>, Vec<String>) =
            found.keys.iter().map(|(number, key)| (int(*number), key.to_string())).unzip();
        sqlx::query!(
            r#"update step t set content_key = k.key
               from unnest($2::int[], $3::text[]) as k(number, key)
               where t.stage_id = $1 and t.number = k.number"#,
            lease.stage.0,
            &numbers,
            &keys,
        )
        .execute(&mut *transaction)
        .await?;
        // Between the look and now nothing else kept them.
        renew(&mut transaction, &stage.project, &found.hits).await?;
        let mut hits: Vec<_> = found.hits.iter().collect();
        hits.sort_by_key(|(_, key, _)| key.to_string());
        for (number, key, layer) in hits {
            sqlx::query!(
                r#"with hit as (
                       update step set state = 'cached', settled = true
                       where stage_id = $1 and number = $2 returning content_key)
                   insert into cache_record (project, key, layer, content_key, untrusted)
                   select $3, $4, $5, content_key, $6 from hit
                   on conflict (project, key, untrusted) do update set last_used = now()"#,
                lease.stage.0,
                int(*number),
                stage.project,
                key.to_string(),
                write("layer", layer)?,
                stage.untrusted,
            )
            .execute(&mut *transaction)
            .await?;
        }
        let mut made = Vec::new();
        if let Some((key, content_key, wanted)) = &found.slices {
            let domain = domain_of(&stage.project, stage.untrusted)?;
            made =
                share(&mut transaction, (lease.stage.0, &domain), key, content_key, wanted).await?;
        }
        transaction.commit().await?;
        Ok(made)
    }
}

/// Writes down that these layers are in use. Fails when one is not there any more.
async fn renew(
    connection: &mut sqlx::PgConnection,
    project: &str,
    hits: &[(u32, Digest, Layer)],
) -> Result<()> {
    let layers = hits
        .iter()
        .filter(|(.., layer)| matches!(layer.origin, LayerOrigin::Farm | LayerOrigin::Brought));
    let digests: BTreeSet<String> = layers.map(|(.., layer)| layer.blob.to_string()).collect();
    let digests: Vec<String> = digests.into_iter().collect();
    let renewed = sqlx::query!(
        r#"with locked as (
               select digest from object
               where project = $1 and kind = 'blob' and digest = any($2)
                 and present and deleting_at is null
               order by digest for update)
           update object o set last_used = now(), delete_after = null from locked l
           where o.project = $1 and o.kind = 'blob' and o.digest = l.digest"#,
        project,
        &digests,
    )
    .execute(connection)
    .await?;
    if renewed.rows_affected() == digests.len() as u64 { Ok(()) } else { Err(StoreError::Deleting) }
}

/// Takes the slices of a stage with the same content.
async fn share(
    connection: &mut sqlx::PgConnection,
    (stage, domain): (Uuid, &Domain),
    key: &Digest,
    content_key: &Digest,
    wanted: &[SliceSelector],
) -> Result<Vec<SliceSelector>> {
    let selectors: Vec<String> = wanted.iter().map(|one| one.digest().to_string()).collect();
    let rows = sqlx::query_scalar!(
        r#"with kept_objects as (
               update object o set last_used = now(), delete_after = null
               where o.project = $1 and o.kind = 'manifest' and o.deleting_at is null
                 and o.digest in (select manifest from cache_slice
                                  where project = $1 and stage_key = $3 and selector = any($4)
                                    and (not untrusted or $6))
               returning o.digest),
           found as (
               update cache_slice c set last_used = now()
               from kept_objects k
               where c.project = $1 and c.stage_key = $3 and c.selector = any($4)
                 and k.digest = c.manifest and (not c.untrusted or $6)
               returning selector, paths, manifest, inline_manifest, files, content_bytes,
                         stored_bytes, content, untrusted),
           one as (
               select distinct on (selector) selector, paths, manifest, inline_manifest, files,
                      content_bytes, stored_bytes, content
               from found order by selector, untrusted),
           kept as (
               insert into cache_slice (project, untrusted, stage_key, selector, paths, manifest,
                                        inline_manifest, files, content_bytes, stored_bytes, content)
               select $1, $6, $2, o.* from one o on conflict do nothing)
           insert into stage_slice (stage_id, selector, paths, manifest, inline_manifest, files,
                                    content_bytes, stored_bytes, content)
           select $5, o.* from one o
           on conflict (stage_id, selector) do update set files = excluded.files
           returning selector"#,
        domain.project.as_str(),
        key.to_string(),
        content_key.to_string(),
        &selectors,
        stage,
        domain.trust.is_untrusted(),
    )
    .fetch_all(connection)
    .await?;
    let is_made = |one: &&SliceSelector| rows.contains(&one.digest().to_string());
    Ok(wanted.iter().filter(is_made).cloned().collect())
}
