//! Removing what nobody needs any more: on one coordinator at a time, a bounded part in each round.

use std::sync::Arc;

use blobstore::names;
use common::{Digest, ProjectName};
use futures_util::StreamExt as _;
use store::Doomed;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::{App, AppError};

/// Rounds of the time between two counts of what projects have: a count reads all rows.
const ROUNDS_PER_COUNT: u32 = 10;
/// Deletions at once.
const PARALLEL: usize = 8;
/// Full rounds that follow each other without a pause.
const FULL_ROUNDS: u32 = 20;

/// Runs until `stop`.
pub(crate) async fn keep(app: Arc<App>, stop: CancellationToken) {
    let me = Uuid::new_v4();
    let mut round: u32 = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(app.retention.interval) => {}
            () = stop.cancelled() => return,
        }
        // Others take over when this one has been silent for some rounds.
        let secs = (app.retention.interval * 3).as_secs_f64();
        match app.store.take_duty("retention", me, secs).await {
            Ok(true) => {}
            Ok(false) => continue,
            Err(error) => {
                tracing::warn!(%error, "nothing was removed in this round");
                continue;
            }
        }
        if let Err(error) = sweep(&app, round.is_multiple_of(ROUNDS_PER_COUNT), &stop).await {
            tracing::warn!(%error, "a round of removing failed");
        }
        round = round.wrapping_add(1);
    }
}

async fn sweep(app: &App, counts: bool, stop: &CancellationToken) -> Result<(), AppError> {
    let rules = &app.retention.rules;
    if counts {
        app.store.measure_projects(rules).await?;
    }
    let (mut records, mut struck, mut deleted, mut builds) = (0, 0, 0, 0);
    for _ in 0..FULL_ROUNDS {
        if stop.is_cancelled() {
            break;
        }
        let trimmed = app.store.trim_cache(rules).await?;
        let (_, unused) = app.store.strike_objects(rules).await?;
        let gone = delete_objects(app).await?;
        let logs = delete_logs(app).await?;
        let removed = app.store.remove_old_builds(rules).await?;
        (records, struck, deleted, builds) =
            (records + trimmed, struck + unused, deleted + gone, builds + removed);
        if trimmed + unused + gone + logs + removed == 0 {
            break;
        }
    }
    app.metrics.removed_total.with_label_values(&["records"]).inc_by(records as u64);
    app.metrics.removed_total.with_label_values(&["objects"]).inc_by(deleted as u64);
    app.metrics.removed_total.with_label_values(&["builds"]).inc_by(builds as u64);
    if records + struck + deleted + builds > 0 {
        tracing::info!(records, struck, deleted, builds, "what nobody needs any more was removed");
    }
    Ok(())
}

/// Deletes objects whose pause is over. One that cannot be deleted is tried again later: until then
/// it counts as gone.
async fn delete_objects(app: &App) -> Result<usize, AppError> {
    let doomed = app.store.take_doomed(&app.retention.rules).await?;
    let results: Vec<Option<Doomed>> = futures_util::stream::iter(doomed)
        .map(|object| async move {
            let Some(name) = name_of(&object) else { return Some(object) };
            match app.objects.delete(&name).await {
                Ok(()) => Some(object),
                Err(error) => {
                    tracing::warn!(%error, "an object was not deleted");
                    None
                }
            }
        })
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    let gone: Vec<Doomed> = results.into_iter().flatten().collect();
    app.store.forget_objects(&gone).await?;
    Ok(gone.len())
}

fn name_of(object: &Doomed) -> Option<String> {
    let project: ProjectName = object.project.parse().ok()?;
    let digest: Digest = object.digest.parse().ok()?;
    match object.kind.as_str() {
        "blob" => Some(names::blob(&project, &digest)),
        "pack" => Some(names::pack(&project, &digest)),
        "manifest" => Some(names::manifest(&project, &digest)),
        "export" => Some(names::export(&project, &digest)),
        _ => None,
    }
}

async fn delete_logs(app: &App) -> Result<usize, AppError> {
    let objects = app.store.old_logs(&app.retention.rules).await?;
    let results: Vec<Option<String>> = futures_util::stream::iter(objects)
        .map(|name| async move {
            match app.objects.delete(&name).await {
                Ok(()) => Some(name),
                Err(error) => {
                    tracing::warn!(%error, "a log was not deleted");
                    None
                }
            }
        })
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    let gone: Vec<String> = results.into_iter().flatten().collect();
    app.store.forget_logs(&gone).await?;
    Ok(gone.len())
}
