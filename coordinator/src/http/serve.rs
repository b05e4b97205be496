//! The router and its common rules: limits, request ids, panics, times.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, patch, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use super::{dashboard, ops, public, reply, worker};
use crate::app::App;

/// Longest body of an ordinary request.
const BODY_BYTES: usize = 2 << 20;
/// Longest body of a request that lists packs, or carries a Dockerfile or a worker's state.
const BIG_BODY_BYTES: usize = 16 << 20;
/// Longest time until an answer begins; `sync` is held open for less.
const ANSWER_TIME: Duration = Duration::from_mins(1);

/// All routes.
pub(super) fn router(app: Arc<App>) -> Router {
    let public = Router::new()
        .route("/v1/contexts", post(public::negotiate_context))
        .route("/v1/builds", post(public::submit_build).get(public::list_builds))
        .route("/v1/checks", post(public::check_file))
        .route("/v1/plans", post(public::show_plan))
        .layer(DefaultBodyLimit::max(BIG_BODY_BYTES))
        .route("/v1/builds/{id}", get(public::get_build))
        .route("/v1/builds/{id}/stages", get(public::get_stages))
        .route("/v1/builds/{id}/cancel", post(public::cancel_build))
        .route("/v1/builds/{id}/retry", post(public::retry_build))
        .route("/v1/builds/{id}/purge", post(public::purge_build))
        .route("/v1/projects", get(public::list_projects))
        .route("/v1/projects/{name}", patch(public::set_project))
        .route("/v1/builds/{id}/why", get(public::explain_build))
        .route("/v1/builds/{id}/agent", post(public::poll_agent))
        .route("/v1/builds/{id}/agent/answers", post(public::answer_agent))
        .route("/v1/builds/{id}/events", get(public::follow_build))
        .route("/v1/builds/{id}/logs", get(public::read_logs))
        .route("/v1/workers", get(public::list_workers));
    let workers = Router::new()
        .route("/worker/v1/enrol", post(worker::enrol))
        .route("/worker/v1/sync", post(worker::sync))
        .route("/worker/v1/objects", post(worker::objects))
        .route("/worker/v1/objects/suspect", post(worker::suspect))
        .route("/worker/v1/logs", post(worker::logs))
        .route("/worker/v1/steps", post(worker::steps))
        .route("/worker/v1/slices", post(worker::slices))
        .route("/worker/v1/done", post(worker::done))
        .route("/worker/v1/cache/lookup", post(worker::look_up))
        .route("/worker/v1/result", post(worker::result))
        .route("/worker/v1/tags", post(worker::tags))
        .route("/worker/v1/agent", post(worker::agent))
        .layer(DefaultBodyLimit::max(BIG_BODY_BYTES));
    let ops = Router::new()
        .route("/", get(dashboard::page))
        .route("/dashboard.js", get(dashboard::script))
        .route("/dashboard.css", get(dashboard::style))
        .route("/openapi.json", get(ops::openapi))
        .route("/healthz", get(ops::health))
        .route("/readyz", get(ops::ready))
        .route("/metrics", get(ops::metrics));
    public
        .merge(workers)
        .merge(ops)
        .fallback(reply::not_found)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(CatchPanicLayer::custom(|_| reply::panicked()))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), common_rules))
        .with_state(app)
}

/// Gives each request an id, a time limit, and a place in the metrics.
async fn common_rules(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let route =
        request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str).to_owned();
    let start = Instant::now();
    let work = reply::with_request_id(id.clone(), next.run(request));
    let mut response = match tokio::time::timeout(ANSWER_TIME, work).await {
        Ok(response) => response,
        Err(_) => reply::timed_out(&id).into_response(),
    };
    let status = response.status().as_str().to_owned();
    let seconds = start.elapsed().as_secs_f64();
    app.metrics.requests_seconds.with_label_values(&[route.as_str(), &status]).observe(seconds);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}

/// Serves until `stop`; open answers get a moment to end.
pub(crate) async fn serve(app: Arc<App>, listener: TcpListener, stop: CancellationToken) {
    let router = router(app);
    let server = axum::serve(listener, router).with_graceful_shutdown({
        let stop = stop.clone();
        async move { stop.cancelled().await }
    });
    let server = server.into_future();
    let limit = async {
        stop.cancelled().await;
        // Held-open calls end with the process: their callers come back by themselves.
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        result = server => {
            if let Err(error) = result {
                tracing::error!(%error, "the HTTP server failed");
            }
        }
        () = limit => {}
    }
}
