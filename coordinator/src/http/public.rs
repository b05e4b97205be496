//! `/v1`.

use std::sync::Arc;

use api::Problem;
use api::public::v1::{
    AgentMessages, AgentPoll, AgentReply, BuildPage, BuildRequest, BuildView, CheckView,
    ContextNegotiation, ContextUpload, PlanRequest, PlanView, ProjectSettings, ProjectView,
    PurgeView, StageView, WhyView, WorkerView,
};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use common::{BuildId, ProjectName, StageId};
use serde::Deserialize;
use store::Submitted;
use time::OffsetDateTime;
use uuid::Uuid;

use super::reply::{Refusal, Reply};
use super::stream;
use super::token::Caller;
use crate::app::App;
use crate::auth::Scope;

/// Builds of one page.
const PAGE: u32 = 50;

/// Names the parts of a context that the farm lacks.
#[utoipa::path(post, path = "/v1/contexts", request_body = ContextUpload,
    responses((status = 200, body = ContextNegotiation)), security(("token" = ["builds:write"])))]
pub(super) async fn negotiate_context(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(upload): Json<ContextUpload>,
) -> Reply<Json<ContextNegotiation>> {
    caller.may(Scope::BuildsWrite, &upload.project)?;
    Ok(Json(app.negotiate_context(&upload).await?))
}

/// Accepts a build. With an Idempotency-Key the same build is made once.
#[utoipa::path(post, path = "/v1/builds", request_body = BuildRequest,
    responses((status = 202, body = BuildView)), security(("token" = ["builds:write"])))]
pub(super) async fn submit_build(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    Json(request): Json<BuildRequest>,
) -> Reply<(StatusCode, [(header::HeaderName, String); 1], Json<BuildView>)> {
    caller.may(Scope::BuildsWrite, &request.project)?;
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok());
    let submitted = app.submit_build(&request, key.map(str::to_owned)).await?;
    let (Submitted::New(id) | Submitted::Existing(id)) = submitted;
    let view = app.view_build(id).await?;
    let location = [(header::LOCATION, format!("/v1/builds/{id}"))];
    Ok((StatusCode::ACCEPTED, location, Json(view)))
}

/// Says what a build would do: the stages, what is cached, and what each key is made of. Nothing
/// runs and nothing is stored; the files of the context need not be uploaded, only its manifest.
#[utoipa::path(post, path = "/v1/plans", request_body = PlanRequest,
    responses((status = 200, body = PlanView)), security(("token" = ["builds:write"])))]
pub(super) async fn show_plan(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(request): Json<PlanRequest>,
) -> Reply<Json<PlanView>> {
    // Resolving images costs, and hits tell what others have built: as much as building does.
    caller.may(Scope::BuildsWrite, &request.build.project)?;
    Ok(Json(app.show_plan(&request).await?))
}

/// Runs the build checks, and says which targets the file has and what the build of one takes.
/// Nothing runs and nothing is stored; no file of the context has to be there.
#[utoipa::path(post, path = "/v1/checks", request_body = BuildRequest,
    responses((status = 200, body = CheckView)), security(("token" = ["builds:write"])))]
pub(super) async fn check_file(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(request): Json<BuildRequest>,
) -> Reply<Json<CheckView>> {
    caller.may(Scope::BuildsWrite, &request.project)?;
    Ok(Json(app.check_file(&request).await?))
}

#[derive(Deserialize, utoipa::IntoParams)]
pub(super) struct ListQuery {
    /// Only builds of this project.
    project: Option<ProjectNameText>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A project's name in a query.
type ProjectNameText = String;

/// Builds, newest first.
#[utoipa::path(get, path = "/v1/builds", params(ListQuery),
    responses((status = 200, body = BuildPage)), security(("token" = ["builds:read"])))]
pub(super) async fn list_builds(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Reply<Json<BuildPage>> {
    caller.has(Scope::BuildsRead)?;
    let allowed = caller.0.projects.clone();
    let projects = match query.project {
        Some(name) => {
            let project: ProjectName =
                name.parse().map_err(|error: common::ids::InvalidProjectName| {
                    Refusal::from(Problem::new(400, "bad-project", error.to_string()))
                })?;
            caller.may(Scope::BuildsRead, &project)?;
            Some(vec![project.to_string()])
        }
        None => allowed.map(|names| names.iter().map(ToString::to_string).collect()),
    };
    let before = query.cursor.as_deref().map(parse_cursor).transpose()?;
    Ok(Json(app.list_builds(projects, before, PAGE).await?))
}

fn parse_cursor(text: &str) -> Result<(OffsetDateTime, Uuid), Problem> {
    let bad = || Problem::new(400, "bad-cursor", "the cursor is none of ours");
    let (nanos, id) = text.split_once('_').ok_or_else(bad)?;
    let nanos: i128 = nanos.parse().map_err(|_| bad())?;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| bad())?;
    Ok((time, id.parse().map_err(|_| bad())?))
}

async fn readable(app: &App, caller: &Caller, id: &str) -> Result<BuildId, Refusal> {
    let missing = || Refusal::from(Problem::new(404, "not-found", "no such build"));
    let id: BuildId = id.parse().map_err(|_| missing())?;
    caller.has(Scope::BuildsRead)?;
    caller.may(Scope::BuildsRead, &app.build_project(id).await?)?;
    Ok(id)
}

/// One build with its stages.
#[utoipa::path(get, path = "/v1/builds/{id}", params(("id" = String, Path)),
    responses((status = 200, body = BuildView)), security(("token" = ["builds:read"])))]
pub(super) async fn get_build(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Reply<Json<BuildView>> {
    let id = readable(&app, &caller, &id).await?;
    Ok(Json(app.view_build(id).await?))
}

/// The stages of a build.
#[utoipa::path(get, path = "/v1/builds/{id}/stages", params(("id" = String, Path)),
    responses((status = 200, body = Vec<StageView>)), security(("token" = ["builds:read"])))]
pub(super) async fn get_stages(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Reply<Json<Vec<StageView>>> {
    let id = readable(&app, &caller, &id).await?;
    Ok(Json(app.view_build(id).await?.stages))
}

/// Ends a build.
#[utoipa::path(post, path = "/v1/builds/{id}/cancel", params(("id" = String, Path)),
    responses((status = 200, body = BuildView)), security(("token" = ["builds:write"])))]
pub(super) async fn cancel_build(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Reply<Json<BuildView>> {
    let id = writable(&app, &caller, &id).await?;
    app.cancel_build(id, &caller.0.subject).await?;
    Ok(Json(app.view_build(id).await?))
}

/// Runs the stages of a build again that failed or were cancelled. What has ended well is kept.
#[utoipa::path(post, path = "/v1/builds/{id}/retry", params(("id" = String, Path)),
    responses((status = 200, body = BuildView),
              (status = 409, description = "There is nothing to run again, or not from here.")),
    security(("token" = ["builds:write"])))]
pub(super) async fn retry_build(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Reply<Json<BuildView>> {
    let id = writable(&app, &caller, &id).await?;
    app.retry_build(id, &caller.0.subject).await?;
    Ok(Json(app.view_build(id).await?))
}

/// Makes the cache forget what a build has made, and deletes its bytes for good; those that others
/// need stay. Purging twice does no harm.
#[utoipa::path(post, path = "/v1/builds/{id}/purge", params(("id" = String, Path)),
    responses((status = 200, body = PurgeView),
              (status = 409, description = "The build has not ended.")),
    security(("token" = ["builds:write"])))]
pub(super) async fn purge_build(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Reply<Json<PurgeView>> {
    let id = writable(&app, &caller, &id).await?;
    Ok(Json(app.purge_build(id, &caller.0.subject).await?))
}

/// The projects: what was set for them, and what they take.
#[utoipa::path(get, path = "/v1/projects", responses((status = 200, body = Vec<ProjectView>)),
    security(("token" = ["builds:read"])))]
pub(super) async fn list_projects(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Reply<Json<Vec<ProjectView>>> {
    caller.has(Scope::BuildsRead)?;
    Ok(Json(app.list_projects(|name| caller.0.may(Scope::BuildsRead, name)).await?))
}

/// Changes settings of a project.
#[utoipa::path(patch, path = "/v1/projects/{name}", params(("name" = String, Path)),
    request_body = ProjectSettings, responses((status = 200, body = ProjectView)),
    security(("token" = ["admin"])))]
pub(super) async fn set_project(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Json(settings): Json<ProjectSettings>,
) -> Reply<Json<ProjectView>> {
    let bad = |error: common::ids::InvalidProjectName| {
        Refusal::from(Problem::new(400, "bad-project", error.to_string()))
    };
    let name: ProjectName = name.parse().map_err(bad)?;
    caller.may(Scope::Admin, &name)?;
    Ok(Json(app.set_project(&name, &settings, &caller.0.subject).await?))
}

/// Why the steps of a build ran: what is another thing than in the build before.
#[utoipa::path(get, path = "/v1/builds/{id}/why", params(("id" = String, Path)),
    responses((status = 200, body = WhyView)), security(("token" = ["builds:read"])))]
pub(super) async fn explain_build(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Reply<Json<WhyView>> {
    let id = readable(&app, &caller, &id).await?;
    Ok(Json(app.explain_build(id).await?))
}

/// A build that the caller may change.
async fn writable(app: &App, caller: &Caller, id: &str) -> Result<BuildId, Refusal> {
    let id = readable(app, caller, id).await?;
    caller.may(Scope::BuildsWrite, &app.build_project(id).await?)?;
    Ok(id)
}

/// Messages to the SSH agents that came with a build; held open until there is one.
#[utoipa::path(post, path = "/v1/builds/{id}/agent", params(("id" = String, Path)),
    request_body = AgentPoll, responses((status = 200, body = AgentMessages)),
    security(("token" = ["builds:write"])))]
pub(super) async fn poll_agent(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Json(poll): Json<AgentPoll>,
) -> Reply<Json<AgentMessages>> {
    let id = writable(&app, &caller, &id).await?;
    Ok(Json(app.poll_agent(id, &poll).await?))
}

/// Takes what an agent says.
#[utoipa::path(post, path = "/v1/builds/{id}/agent/answers", params(("id" = String, Path)),
    request_body = AgentReply, responses((status = 204)),
    security(("token" = ["builds:write"])))]
pub(super) async fn answer_agent(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Json(reply): Json<AgentReply>,
) -> Reply<StatusCode> {
    let id = writable(&app, &caller, &id).await?;
    app.answer_agent(id, &reply).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Server-Sent Events: `build` with the whole view at each change, until the build has ended.
#[utoipa::path(get, path = "/v1/builds/{id}/events", params(("id" = String, Path)),
    responses((status = 200, content_type = "text/event-stream", body = BuildView)),
    security(("token" = ["builds:read"])))]
pub(super) async fn follow_build(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Reply<Response> {
    let id = readable(&app, &caller, &id).await?;
    Ok(stream::build_events(app, id))
}

#[derive(Deserialize, utoipa::IntoParams)]
pub(super) struct LogQuery {
    /// Go on until the build has ended.
    #[serde(default)]
    follow: bool,
    /// Only this stage.
    #[param(value_type = Option<String>)]
    stage: Option<StageId>,
}

/// The log: Server-Sent Events `log`, resumable by Last-Event-ID, or plain text.
#[utoipa::path(get, path = "/v1/builds/{id}/logs", params(("id" = String, Path), LogQuery),
    responses((status = 200, content_type = "text/event-stream", body = api::public::v1::LogLine)),
    security(("token" = ["builds:read"])))]
pub(super) async fn read_logs(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Reply<Response> {
    let id = readable(&app, &caller, &id).await?;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let as_text = header("accept").is_some_and(|accept| accept.starts_with("text/plain"));
    let last = header("last-event-id").map(str::to_owned);
    Ok(stream::log(app, id, query.stage, query.follow, last, as_text))
}

/// The workers.
#[utoipa::path(get, path = "/v1/workers", responses((status = 200, body = Vec<WorkerView>)),
    security(("token" = ["builds:read"])))]
pub(super) async fn list_workers(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Reply<Json<Vec<WorkerView>>> {
    caller.has(Scope::BuildsRead)?;
    Ok(Json(app.list_workers().await?))
}
