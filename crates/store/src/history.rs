//! What past runs tell: how long stages take, which worker has which layers.

use std::collections::BTreeMap;

use common::image::Layer;
use common::{Digest, Lease, ProjectName, StageId};
use uuid::Uuid;

use crate::ready::small;
use crate::{Result, Store, int};

/// Longest chain of which every part is remembered; of longer ones the upper parts.
const CHAIN_PARTS: usize = 16;

/// The name of a stack of layers; an empty one has none.
pub fn chain_of(layers: &[Layer]) -> Option<String> {
    chains(layers).pop()
}

/// The names of a stack and of all that it stands on, lowest first.
fn chains(layers: &[Layer]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(layers.len());
    for layer in layers {
        let below = names.last().map_or("", String::as_str);
        names.push(Digest::of(format!("{below} {}", layer.diff_id).as_bytes()).to_string());
    }
    names
}

impl Store {
    /// How long stages of these lineages take: the median of their last runs.
    pub async fn known_durations(
        &self,
        project: &ProjectName,
        lineages: &[String],
    ) -> Result<BTreeMap<String, u64>> {
        let rows = sqlx::query!(
            r#"select lineage, p50_millis from stage_history
               where project = $1 and lineage = any($2)"#,
            project.as_str(),
            lineages,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.lineage, u64::from(small(row.p50_millis)))).collect())
    }

    /// Stages ran so many milliseconds: for the next prediction. After their results, in a transaction
    /// of its own: builds of one project that end at once would wait for each other.
    pub async fn remember_durations(&self, runs: &[(StageId, u64)]) -> Result<()> {
        let stages: Vec<Uuid> = runs.iter().map(|(stage, _)| stage.0).collect();
        let millis: Vec<i32> = runs.iter().map(|(_, millis)| int(*millis)).collect();
        sqlx::query!(
            r#"insert into stage_history (project, lineage, recent, p50_millis)
               select s.project, d.lineage, (array_agg(r.millis))[1:15],
                      percentile_disc(0.5) within group (order by r.millis)
               from unnest($1::uuid[], $2::int[]) r(stage, millis)
               join stage s on s.id = r.stage join stage_detail d on d.stage_id = s.id
               where d.lineage is not null and not s.untrusted group by s.project, d.lineage order by 1, 2
               on conflict (project, lineage) do update
               set recent = (excluded.recent || stage_history.recent)[1:15], updated_at = now(),
                   p50_millis = (select percentile_disc(0.5) within group (order by v)
                                 from unnest((excluded.recent || stage_history.recent)[1:15]) v)"#,
            &stages,
            &millis,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The holders of leases have these layers now, and all below them.
    pub async fn remember_layers(&self, made: &[(Lease, &[Layer])]) -> Result<()> {
        let (mut stages, mut epochs, mut chained) = (Vec::new(), Vec::new(), Vec::new());
        for (lease, layers) in made {
            let names = chains(layers);
            for name in names.into_iter().rev().take(CHAIN_PARTS) {
                stages.push(lease.stage.0);
                epochs.push(lease.epoch.0);
                chained.push(name);
            }
        }
        if stages.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            r#"insert into worker_chain (chain, worker_id)
               select distinct m.chain, a.worker_id
               from unnest($1::uuid[], $2::bigint[], $3::text[]) m(stage, epoch, chain)
               join attempt a on a.stage_id = m.stage and a.epoch = m.epoch
               order by m.chain, a.worker_id
               on conflict (chain, worker_id) do update set last_used = now()
               where worker_chain.last_used < now() - interval '1 hour'"#,
            &stages,
            &epochs,
            &chained,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Forgets layers that nobody has used for a week, some at a time.
    pub async fn forget_layers(&self) -> Result<u64> {
        let done = sqlx::query!(
            r#"delete from worker_chain where ctid = any(array(
                   select ctid from worker_chain where last_used < now() - interval '7 days'
                   order by last_used limit 1000))"#
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }
}
