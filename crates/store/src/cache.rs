//! The cache: layers by step key, slices by stage key.

use std::collections::{BTreeMap, HashMap};

use common::image::Layer;
use common::plan::SliceSelector;
use common::{Digest, Domain, ProjectName, Trust};

use crate::{Result, Store, StoreError, read};
use sqlx::types::time::OffsetDateTime;

/// Names a slice in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SliceKey {
    /// Key of the stage that made it.
    pub stage_key: Digest,
    /// Digest of the selector.
    pub selector: Digest,
}

/// A slice that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedSlice {
    /// Which files.
    pub selector: SliceSelector,
    /// Digest of the encoded manifest.
    pub manifest: Digest,
    /// The encoded manifest in base64, when it is small.
    pub inline_manifest: Option<String>,
    /// Number of regular files.
    pub files: u64,
    /// Their bytes.
    pub content_bytes: u64,
    /// Bytes in the object store.
    pub stored_bytes: u64,
    /// Digest of what it holds, without times.
    pub content: Option<Digest>,
}

/// The domain as rows tell it.
pub(crate) fn domain_of(project: &str, is_untrusted: bool) -> Result<Domain> {
    let project = project.parse().map_err(|_| StoreError::WrongState("project name"))?;
    let trust = if is_untrusted { Trust::Untrusted } else { Trust::Trusted };
    Ok(Domain { project, trust })
}

impl Store {
    /// Which of the keys have a layer, in one statement that also renews their last use. An untrusted
    /// domain sees those of the trusted one too, and those first.
    pub async fn find_layers(
        &self,
        domain: &Domain,
        keys: &[Digest],
    ) -> Result<BTreeMap<Digest, Layer>> {
        let keys: Vec<String> = keys.iter().map(Digest::to_string).collect();
        let rows = sqlx::query!(
            // In one order, so that two of these cannot wait for each other.
            r#"with found as (
                   select key, untrusted from cache_record
                   where project = $1 and key = any($2) and (not untrusted or $3)
                   order by key, untrusted for update)
               update cache_record r set last_used = now() from found f
               where r.project = $1 and r.key = f.key and r.untrusted = f.untrusted
               returning r.key, r.layer, r.untrusted"#,
            domain.project.as_str(),
            &keys,
            domain.trust.is_untrusted(),
        )
        .fetch_all(&self.pool)
        .await?;
        let mut found = BTreeMap::new();
        for row in rows {
            if let Ok(key) = row.key.parse()
                && (!row.untrusted || !found.contains_key(&key))
            {
                found.insert(key, read("layer", row.layer)?);
            }
        }
        Ok(found)
    }

    /// When the layers of keys were made, each in its project; of those that the cache has.
    pub async fn layers_created_at(
        &self,
        keys: &[(ProjectName, Digest)],
    ) -> Result<HashMap<(ProjectName, Digest), OffsetDateTime>> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let projects: Vec<String> = keys.iter().map(|(project, _)| project.to_string()).collect();
        let digests: Vec<String> = keys.iter().map(|(_, key)| key.to_string()).collect();
        let rows = sqlx::query!(
            r#"select w.place as "place!", c.created_at
               from unnest($1::text[], $2::text[]) with ordinality w(project, key, place)
               join cache_record c on c.project = w.project and c.key = w.key
               -- The last one counts.
               order by c.untrusted desc"#,
            &projects,
            &digests,
        )
        .fetch_all(&self.pool)
        .await?;
        let found = rows.into_iter().filter_map(|row| {
            let place = usize::try_from(row.place).ok()?.checked_sub(1)?;
            Some((keys.get(place)?.clone(), row.created_at))
        });
        Ok(found.collect())
    }

    /// Which slices of these stages exist, as [`Self::find_layers`] says.
    pub async fn find_slices(
        &self,
        domain: &Domain,
        stage_keys: &[Digest],
    ) -> Result<BTreeMap<SliceKey, CachedSlice>> {
        let keys: Vec<String> = stage_keys.iter().map(Digest::to_string).collect();
        let rows = sqlx::query!(
            r#"with found as (
                   select stage_key, selector, untrusted from cache_slice
                   where project = $1 and stage_key = any($2) and (not untrusted or $3)
                   order by stage_key, selector, untrusted for update)
               update cache_slice c set last_used = now() from found f
               where c.project = $1 and c.stage_key = f.stage_key and c.selector = f.selector
                 and c.untrusted = f.untrusted
               returning c.stage_key, c.paths, c.manifest, c.inline_manifest, c.files,
                         c.content_bytes, c.stored_bytes, c.content, c.untrusted"#,
            domain.project.as_str(),
            &keys,
            domain.trust.is_untrusted(),
        )
        .fetch_all(&self.pool)
        .await?;
        let mut found = BTreeMap::new();
        for row in rows {
            let paths: Vec<String> = read("slice", row.paths)?;
            let selector = SliceSelector::new(paths);
            let (Ok(stage_key), Ok(manifest)) = (row.stage_key.parse(), row.manifest.parse())
            else {
                continue;
            };
            let key = SliceKey { stage_key, selector: selector.digest() };
            if row.untrusted && found.contains_key(&key) {
                continue;
            }
            let slice = CachedSlice {
                selector,
                manifest,
                inline_manifest: row.inline_manifest,
                files: u64::try_from(row.files).unwrap_or(0),
                content_bytes: u64::try_from(row.content_bytes).unwrap_or(0),
                stored_bytes: u64::try_from(row.stored_bytes).unwrap_or(0),
                content: row.content.and_then(|digest| digest.parse().ok()),
            };
            found.insert(key, slice);
        }
        Ok(found)
    }
}
