//! Running again what failed, on request.

use api::Problem;
use common::BuildId;
use logbus::Message;
use store::Retried;

use super::{App, AppError};

impl App {
    /// Runs the stages of a build again that failed or were cancelled; what has ended well is kept.
    /// A build that runs is left as it is, so that asking twice does no harm.
    pub(crate) async fn retry_build(&self, build: BuildId, by: &str) -> Result<(), AppError> {
        let refuse = |code, detail: &str| Err(Problem::new(409, code, detail).into());
        match self.store.retry_build(build).await? {
            Retried::Again => {
                tracing::info!(build.id = %build, by, "build runs again");
                self.bus.send(Message::Planner);
                self.bus.send(Message::Workers);
                self.bus.send(Message::Build(build));
                Ok(())
            }
            Retried::Runs => Ok(()),
            Retried::NotFailed => {
                refuse("not-failed", "the build has not failed and was not cancelled")
            }
            Retried::StillEnding => refuse(
                "still-ending",
                "workers have not let go of the build's stages yet: ask again in a moment",
            ),
            Retried::Gone => refuse(
                "gone",
                "what the build has made, or its context, is not kept any more: build again",
            ),
            Retried::NeedsClient => refuse(
                "needs-client",
                "the build came with secrets or SSH agents, which are not kept: build again",
            ),
        }
    }
}
