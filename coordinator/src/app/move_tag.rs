//! Who may move a tag: the store decides.

use api::Problem;
use api::worker::v1::{ExportTarget, TagAnswer, TagRequest, TagStep};
use store::TagGrant;

use super::documents::ExportDocument;
use super::{App, AppError};

impl App {
    /// Gives or refuses the right to move a tag that the export is to push, or notes what became of
    /// it.
    pub(crate) async fn move_tag(&self, request: &TagRequest) -> Result<TagAnswer, AppError> {
        let (lease, name) = (request.lease, request.name.as_str());
        let (_, plan) = self.store.stage_plan(lease.stage).await?;
        let is_planned = serde_json::from_value(plan).is_ok_and(|export: ExportDocument| {
            let pushes = |target: &ExportTarget| {
                matches!(target, ExportTarget::Push { names, .. } if names.iter().any(|n| n == name))
            };
            export.targets.iter().any(pushes)
        });
        if !is_planned {
            let detail = "the stage does not push under this name";
            return Err(Problem::new(422, "bad-request", detail).into());
        }
        let answer = match request.step {
            TagStep::Ask => {
                match self.count_stale("tag", self.store.ask_for_tag(lease, name).await)? {
                    TagGrant::Granted { good_millis } => TagAnswer::Granted { good_millis },
                    TagGrant::Busy => TagAnswer::Busy,
                    TagGrant::Left { newer } => TagAnswer::Left { newer },
                }
            }
            TagStep::Moved => {
                let moved = self.count_stale("tag", self.store.tag_moved(lease, name).await)?;
                moved.map_or(TagAnswer::Noted, |newer| TagAnswer::Left { newer })
            }
            TagStep::Release => {
                self.count_stale("tag", self.store.release_tag(lease, name).await)?;
                TagAnswer::Noted
            }
        };
        Ok(answer)
    }
}
