//! The timer.

use std::sync::Arc;
use std::time::Duration;

use logbus::Message;
use store::Watch;
use tokio_util::sync::CancellationToken;

use super::time;
use crate::app::App;

/// Time between rounds.
const INTERVAL: Duration = Duration::from_secs(1);

/// Runs until `stop`.
pub(crate) async fn run(app: Arc<App>, stop: CancellationToken) {
    let mut watch = Watch::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = round(&app, &mut watch).await {
            tracing::warn!(%error, "a round of upkeep failed");
        }
    }
}

async fn round(app: &App, watch: &mut Watch) -> store::Result<()> {
    let lost = app.store.expire_workers(app.lost_after.as_secs_f64(), watch).await?;
    if lost > 0 {
        tracing::warn!(workers = lost, "workers were lost, their stages are ready again");
        app.metrics.workers_lost_total.inc_by(lost as u64);
        app.bus.send(Message::Workers);
    }
    app.load_weights().await?;
    time::deadlines(app).await?;
    time::placement(app).await?;
    app.store.forget_layers().await?;
    let forgotten = app.store.forget_secrets().await?;
    if forgotten > 0 {
        tracing::debug!(secrets = forgotten, "secrets of builds that have ended are gone");
    }
    let dropped = app.store.forget_agent_messages().await?;
    if dropped > 0 {
        tracing::debug!(messages = dropped, "messages to agents that nobody waits for are gone");
    }
    let counts = app.store.queue_counts().await?;
    let ready = counts.stages.iter().any(|(state, count)| state == "ready" && *count > 0);
    if ready && counts.free_slots > 0 {
        // A retry whose pause is over, or a wake-up that was lost.
        app.bus.send(Message::Workers);
    }
    app.bus.send(Message::Planner);
    for state in ["waiting", "ready", "running", "parked"] {
        let count = counts.stages.iter().find(|(name, _)| name == state).map_or(0, |(_, n)| *n);
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        app.metrics.stages.with_label_values(&[state]).set(count as f64);
    }
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    for (state, count) in [("total", counts.slots), ("free", counts.free_slots)] {
        app.metrics.slots.with_label_values(&[state]).set(count as f64);
    }
    app.metrics.oldest_ready_seconds.set(counts.oldest_ready_secs);
    Ok(())
}
