//! Purge: the bytes of one build, for good.

use api::Problem;
use api::public::v1::{KeptObject, PurgeView};
use common::BuildId;
use store::Purged;

use super::{App, AppError};

impl App {
    /// Makes the cache forget what a build has made, and strikes out its bytes.
    pub(crate) async fn purge_build(
        &self,
        build: BuildId,
        by: &str,
    ) -> Result<PurgeView, AppError> {
        let purged = match self.store.purge_build(build, self.retention.rules.hold_secs).await? {
            Purged::Done(purged) => purged,
            Purged::Runs => {
                return Err(Problem::new(409, "not-ended", "the build has not ended")
                    .with_hint("cancel it first")
                    .into());
            }
        };
        let (records, objects, bytes) = (purged.records, purged.objects, purged.bytes);
        tracing::info!(build.id = %build, by, records, objects, bytes, "build purged");
        let kept = purged.kept.into_iter().map(|(kind, digest)| KeptObject { kind, digest });
        Ok(PurgeView {
            records,
            objects,
            bytes,
            waiting: purged.waiting,
            kept: kept.collect(),
            within_seconds: self.retention.addresses.as_secs() * 2,
        })
    }
}
