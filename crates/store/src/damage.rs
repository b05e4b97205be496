//! Objects whose bytes are not what their names promise.

use common::{BuildId, ProjectName};

use crate::object::ObjectKey;
use crate::{Result, Store};

/// How often a build is planned because what it needs was damaged: what one stage misses is found at
/// once, what the next one misses later.
const MOST_PLANS: i32 = 20;

impl Store {
    /// Strikes an object out, and what the cache knows by it: whoever needs it next brings or makes it
    /// again. Returns whether it was there.
    pub async fn strike_out(&self, project: &ProjectName, key: &ObjectKey) -> Result<bool> {
        let digest = key.digest.to_string();
        let mut transaction = self.begin().await?;
        let struck = sqlx::query!(
            r#"update object set present = false
               where project = $1 and kind = $2 and digest = $3 and present"#,
            project.as_str(),
            key.kind,
            digest,
        )
        .execute(&mut *transaction)
        .await?;
        if key.kind == "blob" {
            sqlx::query!(
                r#"delete from cache_record
                   where project = $1 and layer->>'blob' = $2 and layer->'origin'->>'kind' = 'farm'"#,
                project.as_str(),
                digest,
            )
            .execute(&mut *transaction)
            .await?;
        } else if key.kind == "manifest" {
            sqlx::query!(
                "delete from cache_slice where project = $1 and manifest = $2",
                project.as_str(),
                digest,
            )
            .execute(&mut *transaction)
            .await?;
        }
        if key.kind == "pack" {
            // Nothing that names it can be laid out.
            sqlx::query!(
                r#"with broken as (
                       select manifest from object_part where project = $1 and pack = $2),
                   forgotten as (
                       delete from cache_slice
                       where project = $1 and manifest in (select manifest from broken))
                   update object set present = false
                   where project = $1 and kind = 'manifest'
                     and digest in (select manifest from broken)"#,
                project.as_str(),
                digest,
            )
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(struck.rows_affected() > 0)
    }

    /// A build that runs needs what is not there any more: it is planned again, from what the cache
    /// still has, with the stages that it then has. Not when stages of other builds wait for some of
    /// its own, and not for ever: then the stage that misses something fails. Returns whether it is.
    pub async fn plan_again(&self, build: BuildId) -> Result<bool> {
        let mut transaction = self.begin().await?;
        let again = sqlx::query_scalar!(
            r#"update build b set state = 'queued', planner = null, planner_until = null,
                      plans = plans + 1
               where id = $1 and state = 'running' and plans < $2 and not exists (
                   select 1 from stage l join stage f on f.attached_to = l.id
                   where l.build_id = b.id and f.build_id <> b.id and f.state = 'attached')
               returning id"#,
            build.0,
            MOST_PLANS,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        if again.is_none() {
            return Ok(false);
        }
        // Whoever holds one is told to drop it, as whoever's lease has run out.
        sqlx::query!("delete from stage where build_id = $1", build.0)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Whether the database takes writes: a standby, or a primary that was demoted, does not.
    pub async fn is_writable(&self) -> Result<bool> {
        Ok(sqlx::query_scalar!(
            r#"select not pg_is_in_recovery()
                      and current_setting('transaction_read_only') = 'off' as "writable!""#
        )
        .fetch_one(&self.pool)
        .await?)
    }
}
