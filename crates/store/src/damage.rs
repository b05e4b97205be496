//! Objects whose bytes are not what their names promise.

use common::ProjectName;

use crate::object::ObjectKey;
use crate::{Result, Store};

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
        transaction.commit().await?;
        Ok(struck.rows_affected() > 0)
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
