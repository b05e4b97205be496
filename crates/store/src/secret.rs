//! Sealed secrets of builds.

use common::BuildId;

use crate::{Result, Store};

impl Store {
    /// The sealed secrets of a build, by name.
    pub async fn build_secrets(&self, build: BuildId) -> Result<Vec<(String, Vec<u8>)>> {
        let rows = sqlx::query!(
            "select name, sealed from build_secret where build_id = $1 order by name",
            build.0,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (row.name, row.sealed)).collect())
    }

    /// Forgets the secrets of builds that have ended. Returns how many.
    pub async fn forget_secrets(&self) -> Result<u64> {
        let done = sqlx::query!(
            r#"delete from build_secret s using build b
               where b.id = s.build_id
                 and b.state in ('succeeded', 'failed', 'cancelled', 'superseded')"#,
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }
}
