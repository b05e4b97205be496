//! Accepting a build.

use api::Problem;
use api::public::v1::{BuildRequest, BuildSource, OutputRequest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::BuildId;
use logbus::Message;
use store::{NewBuild, Submitted};

use super::{App, AppError};

/// Longest Dockerfile in bytes.
const MAX_DOCKERFILE_BYTES: usize = 4 << 20;
/// Longest Idempotency-Key.
const MAX_KEY_CHARS: usize = 200;

impl App {
    /// Stores a request; the planner does the rest.
    pub(crate) async fn submit_build(
        &self,
        request: &BuildRequest,
        key: Option<String>,
    ) -> Result<Submitted, AppError> {
        check(request)?;
        if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > MAX_KEY_CHARS) {
            let detail = format!("Idempotency-Key has to have 1 to {MAX_KEY_CHARS} characters");
            return Err(Problem::new(400, "bad-idempotency-key", detail).into());
        }
        let BuildSource::Context(source) = &request.source;
        let build = NewBuild {
            id: BuildId(uuid::Uuid::now_v7()),
            project: request.project.clone(),
            request: serde_json::to_value(request)?,
            request_key: key,
            dockerfile: source.dockerfile.name.clone(),
            target: request.target.clone(),
        };
        let submitted = self.store.submit_build(&build).await?;
        if let Submitted::New(build) = submitted {
            tracing::info!(build.id = %build, project = %request.project, "build accepted");
            self.bus.send(Message::Planner);
        }
        Ok(submitted)
    }
}

/// Refuses what could never be planned.
pub(super) fn check(request: &BuildRequest) -> Result<(), Problem> {
    let bad = |detail: String| Err(Problem::new(422, "bad-request", detail));
    let BuildSource::Context(source) = &request.source;
    if source.dockerfile.name.is_empty() || source.dockerfile.name.len() > 1000 {
        return bad("dockerfile.name has to have 1 to 1000 bytes".to_owned());
    }
    match BASE64_STANDARD.decode(&source.dockerfile.content_base64) {
        Ok(bytes) if bytes.len() <= MAX_DOCKERFILE_BYTES => {}
        Ok(_) => return bad(format!("the Dockerfile is longer than {MAX_DOCKERFILE_BYTES} bytes")),
        Err(error) => return bad(format!("dockerfile.content_base64 is not base64: {error}")),
    }
    for output in &request.outputs {
        let (OutputRequest::Image { names, .. } | OutputRequest::Oci { names }) = output;
        for name in names {
            let reference: oci::Reference = match name.parse() {
                Ok(reference) => reference,
                Err(error) => return bad(format!("invalid output name: {error}")),
            };
            if reference.digest.is_some() {
                return bad(format!("invalid output name {name:?}: a digest cannot be pushed to"));
            }
        }
        if let OutputRequest::Image { names, push: true } = output
            && names.is_empty()
        {
            return bad("an image without a name cannot be pushed: add -t NAME".to_owned());
        }
    }
    Ok(())
}
