//! Objects that a worker has found damaged or missing.

use std::sync::Arc;

use api::Problem;
use api::worker::v1::{SuspectRequest, SuspectResponse};
use logbus::Message;
use store::ObjectKey;

use super::presign_objects::{kind_name, object_name};
use super::{App, AppError};

/// Most names of one request.
const MAX_NAMES: usize = 100;

impl App {
    /// Looks whether these objects are whole, since a worker's word alone removes nothing. Those that
    /// are not are struck out with what the cache knows by them, and the build is planned again: what
    /// made them runs once more. That goes on when it takes longer than the caller waits.
    pub(crate) async fn suspect_objects(
        self: &Arc<Self>,
        request: SuspectRequest,
    ) -> Result<SuspectResponse, AppError> {
        let app = Arc::clone(self);
        let looking = tokio::spawn(async move { app.look_at(&request).await });
        looking.await.unwrap_or_else(|error| {
            let detail = format!("the look at the objects was given up: {error}");
            Err(Problem::new(500, "internal", detail).into())
        })
    }

    async fn look_at(&self, request: &SuspectRequest) -> Result<SuspectResponse, AppError> {
        if request.objects.len() > MAX_NAMES {
            let detail = format!("more than {MAX_NAMES} objects in one request");
            return Err(Problem::new(413, "too-many-objects", detail).into());
        }
        let (project, build) = self.store.lease_scope(request.lease).await?;
        let mut struck_out = Vec::new();
        let turn = self.suspicion.lock().await;
        for object in &request.objects {
            let name = object_name(&project, object);
            if self.objects.is_whole(&name, &object.digest).await? {
                continue;
            }
            let key = ObjectKey { kind: kind_name(object.kind), digest: object.digest };
            let is_news = self.store.strike_out(&project, &key).await?;
            tracing::error!(name, is_news, "an object is damaged or missing: it was struck out");
            struck_out.push(object.digest);
        }
        drop(turn);
        if !struck_out.is_empty() && self.store.plan_again(build).await? {
            tracing::warn!(build.id = %build, "the build is planned again without what was lost");
            self.bus.send(Message::Planner);
            self.bus.send(Message::Workers);
            self.bus.send(Message::Build(build));
        }
        Ok(SuspectResponse { struck_out })
    }
}
