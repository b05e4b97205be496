//! `/worker/v1`.

use std::sync::Arc;

use api::worker::v1::{
    AgentAnswer, AgentCall, DoneReport, EnrolRequest, EnrolResponse, LogChunk, LookupRequest,
    LookupResponse, ObjectsRequest, ObjectsResponse, ResultReport, SliceReport, StepsReport,
    SuspectRequest, SuspectResponse, SyncRequest, SyncResponse, TagAnswer, TagRequest,
};
use api::{Problem, WORKER_PROTOCOL};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use common::WorkerId;
use store::WorkerFacts;

use super::reply::{Refusal, Reply};
use super::token::{AnyWorker, Caller};
use crate::app::{App, AppError};
use crate::auth::{KeyRing, Scope};

/// How long a worker's own token is good.
const TOKEN_SECS: u64 = 3600;
/// Longest name of a worker.
const MAX_NAME_BYTES: usize = 100;

/// Takes a worker into the farm.
#[utoipa::path(post, path = "/worker/v1/enrol", request_body = EnrolRequest,
    responses((status = 200, body = EnrolResponse)), security(("token" = ["workers"])))]
pub(super) async fn enrol(
    State(app): State<Arc<App>>,
    _: AnyWorker,
    Json(request): Json<EnrolRequest>,
) -> Reply<Json<EnrolResponse>> {
    if request.protocol != WORKER_PROTOCOL {
        let detail = format!(
            "the worker speaks protocol {}, this coordinator speaks {WORKER_PROTOCOL}",
            request.protocol
        );
        return Err(Problem::new(409, "protocol-version", detail)
            .with_hint("install worker and coordinator of the same version")
            .into());
    }
    if request.name.is_empty()
        || request.name.len() > MAX_NAME_BYTES
        || request.platforms.len() > 20
        || !crate::app::are_labels(&request.labels)
    {
        return Err(Problem::new(
            422,
            "bad-request",
            "the worker's name, platforms or labels are unusable",
        )
        .into());
    }
    let facts = WorkerFacts {
        id: request.worker,
        name: request.name.clone(),
        platforms: request.platforms.clone(),
        version: request.version.chars().take(50).collect(),
        labels: request.labels.clone(),
        cpu_millis: request.cpu_millis,
        memory_bytes: request.memory_bytes,
    };
    app.store.enrol_worker(&facts).await.map_err(AppError::from)?;
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = since.map_or(0, |since| since.as_secs());
    let projects = vec!["*".to_owned()];
    let mut claims =
        KeyRing::claims(&request.name, vec![Scope::Workers], projects, now, TOKEN_SECS);
    claims.worker = Some(request.worker);
    let token = app.keys.sign(&claims).map_err(|_| {
        Refusal::from(Problem::new(500, "internal", "the token could not be signed"))
    })?;
    tracing::info!(worker.id = %request.worker, worker.name = request.name, "worker enrolled");
    Ok(Json(EnrolResponse { token, token_secs: TOKEN_SECS }))
}

/// Exchanges states; held open until there is something to say.
#[utoipa::path(post, path = "/worker/v1/sync", request_body = SyncRequest,
    responses((status = 200, body = SyncResponse)), security(("token" = ["workers"])))]
pub(super) async fn sync(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(request): Json<SyncRequest>,
) -> Reply<Json<SyncResponse>> {
    own(&caller, request.worker)?;
    Ok(Json(app.sync_worker(&request).await?))
}

/// Addresses of objects.
#[utoipa::path(post, path = "/worker/v1/objects", request_body = ObjectsRequest,
    responses((status = 200, body = ObjectsResponse)), security(("token" = ["workers"])))]
pub(super) async fn objects(
    State(app): State<Arc<App>>,
    _: AnyWorker,
    Json(request): Json<ObjectsRequest>,
) -> Reply<Json<ObjectsResponse>> {
    Ok(Json(app.presign_objects(&request).await?))
}

/// Takes word of objects that are damaged or missing.
#[utoipa::path(post, path = "/worker/v1/objects/suspect", request_body = SuspectRequest,
    responses((status = 200, body = SuspectResponse)), security(("token" = ["workers"])))]
pub(super) async fn suspect(
    State(app): State<Arc<App>>,
    _: AnyWorker,
    Json(request): Json<SuspectRequest>,
) -> Reply<Json<SuspectResponse>> {
    Ok(Json(app.suspect_objects(request).await?))
}

/// Takes log lines.
#[utoipa::path(post, path = "/worker/v1/logs", request_body = LogChunk,
    responses((status = 204)), security(("token" = ["workers"])))]
pub(super) async fn logs(
    State(app): State<Arc<App>>,
    _: AnyWorker,
    Json(chunk): Json<LogChunk>,
) -> Reply<StatusCode> {
    app.report_log(chunk).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes the states of steps.
#[utoipa::path(post, path = "/worker/v1/steps", request_body = StepsReport,
    responses((status = 204)), security(("token" = ["workers"])))]
pub(super) async fn steps(
    State(app): State<Arc<App>>,
    _: AnyWorker,
    Json(report): Json<StepsReport>,
) -> Reply<StatusCode> {
    app.report_steps(&report).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a slice.
#[utoipa::path(post, path = "/worker/v1/slices", request_body = SliceReport,
    responses((status = 204)), security(("token" = ["workers"])))]
pub(super) async fn slices(
    State(app): State<Arc<App>>,
    _: AnyWorker,
    Json(report): Json<SliceReport>,
) -> Reply<StatusCode> {
    app.report_slice(&report).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Says which steps need not run, by what they read.
#[utoipa::path(post, path = "/worker/v1/cache/lookup", request_body = LookupRequest,
    responses((status = 200, body = LookupResponse)), security(("token" = ["workers"])))]
pub(super) async fn look_up(
    State(app): State<Arc<App>>,
    _: AnyWorker,
    Json(request): Json<LookupRequest>,
) -> Reply<Json<LookupResponse>> {
    Ok(Json(app.look_up(&request).await?))
}

/// Takes the end of a stage's steps.
#[utoipa::path(post, path = "/worker/v1/done", request_body = DoneReport,
    responses((status = 204)), security(("token" = ["workers"])))]
pub(super) async fn done(
    State(app): State<Arc<App>>,
    _: AnyWorker,
    Json(report): Json<DoneReport>,
) -> Reply<StatusCode> {
    app.report_done(&report).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes the end of a stage.
#[utoipa::path(post, path = "/worker/v1/result", request_body = ResultReport,
    responses((status = 204)), security(("token" = ["workers"])))]
pub(super) async fn result(
    State(app): State<Arc<App>>,
    _: AnyWorker,
    Json(report): Json<ResultReport>,
) -> Reply<StatusCode> {
    app.report_result(&report).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives the right to move a tag, or takes note of what became of it.
#[utoipa::path(post, path = "/worker/v1/tags", request_body = TagRequest,
    responses((status = 200, body = TagAnswer)), security(("token" = ["workers"])))]
pub(super) async fn tags(
    State(app): State<Arc<App>>,
    _: AnyWorker,
    Json(request): Json<TagRequest>,
) -> Reply<Json<TagAnswer>> {
    Ok(Json(app.move_tag(&request).await?))
}

/// Passes a message to an agent of the build's client; held open for a while.
#[utoipa::path(post, path = "/worker/v1/agent", request_body = AgentCall,
    responses((status = 200, body = AgentAnswer)), security(("token" = ["workers"])))]
pub(super) async fn agent(
    State(app): State<Arc<App>>,
    _: AnyWorker,
    Json(call): Json<AgentCall>,
) -> Reply<Json<AgentAnswer>> {
    Ok(Json(app.ask_agent(&call).await?))
}

/// A worker speaks for itself only.
fn own(caller: &Caller, worker: WorkerId) -> Result<(), Refusal> {
    caller.has(Scope::Workers)?;
    if caller.0.worker == Some(worker) {
        return Ok(());
    }
    Err(Problem::new(403, "forbidden", "the token is another worker's, or a join token")
        .with_hint("enrol first")
        .into())
}
