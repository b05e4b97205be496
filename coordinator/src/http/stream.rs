//! Answers that go on: Server-Sent Events and text.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use common::{BuildId, StageId};
use futures_util::StreamExt as _;
use logbus::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::app::{App, Cursor, LogEvent};

/// Events that wait for a slow reader.
const BUFFER: usize = 256;
/// Time between looks at a build without a wake-up.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Shortest time between two views: changes in between are seen together.
const SETTLE: Duration = Duration::from_millis(50);

/// The view of a build at each change.
pub(super) fn build_events(app: Arc<App>, build: BuildId) -> Response {
    let (sender, receiver) = mpsc::channel::<Event>(BUFFER);
    tokio::spawn(async move {
        let mut wakes = app.bus.subscribe();
        let mut last = String::new();
        loop {
            let view = match app.view_build(build).await {
                Ok(view) => view,
                Err(error) => {
                    // The client comes back and reads on.
                    tracing::warn!(build.id = %build, %error, "an event stream ends early");
                    return;
                }
            };
            let ended = view.state.is_terminal();
            let Ok(text) = serde_json::to_string(&view) else { return };
            if text != last {
                let event = Event::default().event("build").data(text.clone());
                if sender.send(event).await.is_err() {
                    return;
                }
                last = text;
            }
            if ended {
                return;
            }
            let wake = async {
                loop {
                    match wakes.recv().await {
                        Ok(Message::Build(of)) if of == build => return,
                        Ok(_) => {}
                        Err(_) => return,
                    }
                }
            };
            tokio::select! {
                () = wake => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = sender.closed() => return,
            }
        }
    });
    sse(receiver)
}

/// The log of a build.
pub(super) fn log(
    app: Arc<App>,
    build: BuildId,
    stage: Option<StageId>,
    follow: bool,
    last_id: Option<String>,
    as_text: bool,
) -> Response {
    let (sender, receiver) = mpsc::channel::<LogEvent>(BUFFER);
    tokio::spawn(async move {
        let cursor = Cursor::after(last_id.as_deref());
        if let Err(error) = app.read_log(build, stage, follow, cursor, sender).await {
            tracing::warn!(build.id = %build, %error, "a log stream ends early");
        }
    });
    if as_text {
        let lines = ReceiverStream::new(receiver)
            .map(|event| Ok::<_, Infallible>(format!("{}\n", event.line.text)));
        let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        return (kind, Body::from_stream(lines)).into_response();
    }
    let (events, forwarded) = mpsc::channel::<Event>(BUFFER);
    tokio::spawn(async move {
        let mut receiver = receiver;
        while let Some(event) = receiver.recv().await {
            let Ok(text) = serde_json::to_string(&event.line) else { continue };
            let event = Event::default().event("log").id(event.id()).data(text);
            if events.send(event).await.is_err() {
                return;
            }
        }
        // So that a reader can tell the end from a broken connection.
        let _ = events.send(Event::default().event("end").data("{}")).await;
    });
    sse(forwarded)
}

fn sse(receiver: mpsc::Receiver<Event>) -> Response {
    let stream = ReceiverStream::new(receiver).map(Ok::<_, Infallible>);
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(10));
    Sse::new(stream).keep_alive(keep_alive).into_response()
}
