//! Images of which only the digest is asked for: known from their layers' digests, without a worker.

use api::public::v1::ImageOptions;
use api::worker::v1::{ExportImage, ExportJob, ExportResult, ExportTarget};
use common::StageId;
use common::image::{Layer, LayerOrigin};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use logbus::Message;
use oci::image::{Style, assemble, assemble_index};
use oci::media_type;
use store::StageJobRow;

use super::assign::{Ages, BESIDE, export_job};
use super::documents::ExportDocument;
use super::report::new_export;
use super::{App, AppError};

impl App {
    /// Ends those of these exports that are only a question of digests. Those that a worker has to do
    /// something for are left to it.
    pub(super) async fn answer_exports(&self, exports: &[StageId]) -> Result<(), AppError> {
        if exports.is_empty() {
            return Ok(());
        }
        let rows = self.store.stage_jobs(exports).await?;
        let ages = self.ages(rows.iter()).await?;
        let ages = &ages;
        let answers: Vec<_> = rows.into_iter().map(|row| self.answer_export(row, ages)).collect();
        stream::iter(answers).buffer_unordered(BESIDE).try_collect().await
    }

    async fn answer_export(&self, row: StageJobRow, ages: &Ages) -> Result<(), AppError> {
        let stage = row.id;
        let (build, plan) = (row.build, row.plan.clone());
        let Some(job) = export_job(row, ages)? else { return Ok(()) };
        let Some(results) = digests(&job)? else { return Ok(()) };
        let document: ExportDocument = serde_json::from_value(plan)?;
        let exports = results.iter().map(|result| new_export(&document, result));
        let exports = exports.collect::<serde_json::Result<Vec<_>>>()?;
        if self.store.finish_export(stage, &exports).await? {
            self.bus.send(Message::Build(build));
        }
        Ok(())
    }
}

/// What an export comes to; none when bytes have to move for it.
fn digests(job: &ExportJob) -> serde_json::Result<Option<Vec<ExportResult>>> {
    let plain = ImageOptions::default();
    let is_plain = |target: &ExportTarget| matches!(target, ExportTarget::DigestOnly { options } if *options == plain);
    let is_made =
        |image: &ExportImage| !image.layers.is_empty() && image.layers.iter().all(is_in_form);
    if !job.targets.iter().all(is_plain) || !job.images.iter().all(is_made) {
        return Ok(None);
    }
    let style = Style::default();
    let images = job.images.iter().map(|image| assemble(&image.document, &image.layers, &style));
    let images = images.collect::<serde_json::Result<Vec<_>>>()?;
    let Some(first) = images.first() else { return Ok(None) };
    let config_digest = first.config_digest;
    let digest = if images.len() > 1 {
        assemble_index(&images, &style)?.digest
    } else {
        first.manifest_digest
    };
    let result = |target: usize| ExportResult {
        target: u32::try_from(target).unwrap_or(u32::MAX),
        digest,
        config_digest,
        left: Vec::new(),
        archive: None,
        archive_bytes: None,
    };
    Ok(Some((0..job.targets.len()).map(result).collect()))
}

/// Whether a layer goes into an image as it lies there. Those of base images always do.
fn is_in_form(layer: &Layer) -> bool {
    layer.origin != LayerOrigin::Farm
        || media_type::layer_as_oci(&layer.media_type) == media_type::OCI_LAYER_GZIP
}
