//! Deadlines, and stages that nobody can run.

use common::{Failure, FailureClass};
use logbus::Message;

use crate::app::{App, needs, offer};
use crate::scheduler::unplaceable;

/// How long a stage waits for a worker that could run it, in seconds.
const UNPLACEABLE_SECS: f64 = 900.0;

/// Ends what took too long.
pub(super) async fn deadlines(app: &App) -> store::Result<()> {
    for (build, secs) in app.store.overdue_builds().await? {
        let message = format!("the build did not end within {secs} s");
        let failure = Failure::new(FailureClass::Resource, "build-timeout", message);
        if app.store.fail_build(build, &failure).await? {
            app.bus.send(Message::Workers);
            app.bus.send(Message::Build(build));
        }
    }
    for (lease, secs) in app.store.overdue_stages().await? {
        let message = format!("the stage did not end within {secs} s");
        let failure = Failure::new(FailureClass::Resource, "stage-timeout", message);
        match app.store.fail_stage(lease, &failure).await {
            Ok(resulted) => {
                app.bus.send(Message::Workers);
                app.tell(resulted.builds());
            }
            // It has just ended.
            Err(store::StoreError::StaleLease) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes down which stages no live worker could run, and fails those that waited too long.
pub(super) async fn placement(app: &App) -> store::Result<()> {
    let wanted = app.store.wanted().await?;
    if wanted.is_empty() {
        return Ok(());
    }
    let offers: Vec<_> = app.store.offered().await?.into_iter().map(offer).collect();
    for row in wanted {
        let reason = unplaceable(&needs(row.clone()), &offers);
        for build in app.store.mark_placeable(&row, reason.as_deref()).await? {
            app.bus.send(Message::Build(build));
        }
    }
    for stage in app.store.long_unplaceable(UNPLACEABLE_SECS).await? {
        let failure = Failure::new(FailureClass::Resource, "unplaceable", stage.reason)
            .with_hint("start a worker that can run it, and build again");
        let builds = app.store.fail_waiting(stage.id, &failure).await?;
        if !builds.is_empty() {
            app.bus.send(Message::Workers);
        }
        app.tell(&builds);
    }
    Ok(())
}
