//! The token of a request.

use std::sync::Arc;

use api::Problem;
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use common::ProjectName;

use super::reply::Refusal;
use crate::app::App;
use crate::auth::{AuthError, Identity, Scope};

/// Whose request it is; extracting it refuses requests without a good token.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Identity);

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let Some(token) = token else { return Err(AuthError::Missing.into()) };
        Ok(Self(app.keys.verify(token)?))
    }
}

/// Somebody with the scope of workers; extracting it refuses everybody else.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnyWorker;

impl FromRequestParts<Arc<App>> for AnyWorker {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        Caller::from_request_parts(parts, app).await?.has(Scope::Workers)?;
        Ok(Self)
    }
}

impl Caller {
    /// Refuses a request for something of a project that the token is not good for. What cannot be
    /// read is not even known to exist.
    pub(super) fn may(&self, scope: Scope, project: &ProjectName) -> Result<(), Refusal> {
        if self.0.may(scope, project) {
            return Ok(());
        }
        self.has(scope)?;
        Err(Problem::new(404, "not-found", "no such build or project").into())
    }

    /// Refuses a request that needs a scope which the token lacks.
    pub(super) fn has(&self, scope: Scope) -> Result<(), Refusal> {
        if self.0.has(scope) {
            return Ok(());
        }
        let name = serde_json::to_value(scope).unwrap_or_default();
        let detail = format!("the token lacks the scope {}", name.as_str().unwrap_or("needed"));
        Err(Problem::new(403, "forbidden", detail)
            .with_hint("ask for a token with this scope")
            .into())
    }
}
