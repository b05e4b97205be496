//! Exports that need no worker: what is known of an image without its bytes.

use common::StageId;

use crate::finish::{end_build_if_done, lock_builds};
use crate::result::{NewExport, insert_exports};
use crate::{Result, Store};

impl Store {
    /// Ends an export that no worker has taken; its build may have succeeded by that. False when a
    /// worker was quicker.
    pub async fn finish_export(&self, stage: StageId, exports: &[NewExport]) -> Result<bool> {
        let mut transaction = self.begin().await?;
        lock_builds(&mut transaction, &[stage.0]).await?;
        let build = sqlx::query_scalar!(
            r#"update stage set state = 'succeeded', started_at = now(), ended_at = now()
               where id = $1 and kind = 'export' and state = 'ready' returning build_id"#,
            stage.0,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(build) = build else { return Ok(false) };
        insert_exports(&mut transaction, stage, exports).await?;
        end_build_if_done(&mut transaction, build).await?;
        transaction.commit().await?;
        Ok(true)
    }
}
