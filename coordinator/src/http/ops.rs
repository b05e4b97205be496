//! What operators and their tools need.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use store::SchemaState;

use crate::app::App;

/// The process answers.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// The process can work: database, schema and object store are there, and the database can be
/// written. Redis is not needed.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    let database = app.store.schema_state().await;
    let database = match database {
        Ok(SchemaState::Current) if app.store.is_writable().await.unwrap_or(false) => "ok",
        Ok(SchemaState::Current) => "read only",
        Ok(_) => "wrong schema",
        Err(_) => "unreachable",
    };
    let objects = if app.objects.check().await.is_ok() { "ok" } else { "unreachable" };
    let is_ready = database == "ok" && objects == "ok";
    let degraded = app.bus.dropped() > 0;
    let body: Value =
        json!({"ready": is_ready, "database": database, "objects": objects, "degraded": degraded});
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

/// Prometheus.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    match app.metrics.render() {
        Ok(text) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            (kind, text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The API's description.
pub(super) async fn openapi() -> Response {
    match super::openapi() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
