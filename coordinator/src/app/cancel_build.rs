//! Ending a build on request.

use common::{BuildId, Failure, FailureClass};
use logbus::Message;

use super::{App, AppError};

impl App {
    /// Cancels a build. False when it had ended before.
    pub(crate) async fn cancel_build(&self, build: BuildId, by: &str) -> Result<bool, AppError> {
        let message = format!("the build was cancelled by {by}");
        let failure = Failure::new(FailureClass::Cancelled, "cancelled", message);
        let done = self.store.cancel_build(build, &failure).await?;
        if done {
            tracing::info!(build.id = %build, by, "build cancelled");
            self.bus.send(Message::Workers);
            self.bus.send(Message::Build(build));
        }
        Ok(done)
    }
}
