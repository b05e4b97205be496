//! The loop.

use std::sync::Arc;
use std::time::Duration;

use logbus::Message;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use tokio_util::sync::CancellationToken;

use super::round::round;
use crate::app::App;

/// Time between looks without a wake-up.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Runs until `stop`.
pub(crate) async fn run(app: Arc<App>, stop: CancellationToken) {
    let mut wakes = app.bus.subscribe();
    let mut pause = LOOK_AGAIN;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = app.seats.arrivals() => {}
            () = wake(&mut wakes) => {}
        }
        // One round is for all that has happened before it.
        while !matches!(wakes.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
        pause = match round(&app).await {
            Ok(pause) => pause.min(LOOK_AGAIN),
            Err(error) => {
                tracing::warn!(%error, "a round of giving away stages failed");
                LOOK_AGAIN
            }
        };
    }
}

async fn wake(wakes: &mut Receiver<Message>) {
    while !matches!(wakes.recv().await, Ok(Message::Workers) | Err(_)) {}
}
