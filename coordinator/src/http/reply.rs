//! Errors as problem documents. The caller's fault gets a code, a message and a hint; ours gets a
//! request id and nothing else, and is logged here, once.

use std::future::Future;

use api::Problem;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use store::StoreError;

use crate::app::AppError;
use crate::auth::AuthError;

tokio::task_local! {
    static REQUEST_ID: String;
}

/// Runs a request under its id.
pub(super) async fn with_request_id<F: Future>(id: String, work: F) -> F::Output {
    REQUEST_ID.scope(id, work).await
}

fn request_id() -> Option<String> {
    REQUEST_ID.try_with(Clone::clone).ok()
}

/// An error as an answer.
#[derive(Debug)]
pub(super) struct Refusal(Problem);

/// What a handler gives.
pub(super) type Reply<T> = Result<T, Refusal>;

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(mut problem) = self;
        problem.request_id = request_id().or(problem.request_id);
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(problem)).into_response();
        let kind = HeaderValue::from_static(api::problem::MEDIA_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        Self(Problem::new(401, "unauthorized", error.to_string()).with_hint(
            "send Authorization: Bearer TOKEN; slipway-coordinator token makes one, and the \
             command line takes it from SLIPWAY_TOKEN",
        ))
    }
}

impl From<AppError> for Refusal {
    fn from(error: AppError) -> Self {
        match error {
            AppError::Problem(problem) => Self(*problem),
            AppError::Store(StoreError::NotFound(what)) => {
                Self(Problem::new(404, "not-found", format!("no such {what}")))
            }
            AppError::Store(StoreError::StaleLease) => {
                Self(Problem::new(409, "stale-lease", "the lease is not live"))
            }
            AppError::Store(StoreError::WrongState(what)) => {
                Self(Problem::new(409, "wrong-state", format!("the {what} is in another state")))
            }
            error => {
                let id = request_id().unwrap_or_default();
                tracing::error!(request.id = id, %error, "a request failed");
                Self(
                    Problem::new(503, "unavailable", "the request could not be served now")
                        .with_hint(
                            "try again; the coordinator's log has the reason under the request id",
                        ),
                )
            }
        }
    }
}

/// No such route.
pub(super) async fn not_found() -> Refusal {
    Refusal(
        Problem::new(404, "no-such-route", "there is nothing at this address")
            .with_hint("GET /openapi.json lists what there is"),
    )
}

/// A handler panicked.
pub(super) fn panicked() -> Response {
    tracing::error!("a request handler panicked");
    Refusal(Problem::new(500, "internal", "the request could not be served")).into_response()
}

/// No answer in time.
pub(super) fn timed_out(id: &str) -> Refusal {
    let mut problem = Problem::new(503, "timeout", "the request took too long");
    problem.request_id = Some(id.to_owned());
    Refusal(problem)
}
