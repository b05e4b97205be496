//! Calls of `/worker/v1`.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use api::worker::v1::{
    AgentAnswer, AgentCall, DoneReport, EnrolRequest, EnrolResponse, LogChunk, LookupRequest,
    LookupResponse, ObjectsRequest, ObjectsResponse, ResultReport, SliceReport, StepsReport,
    SuspectRequest, SuspectResponse, SyncRequest, SyncResponse, TagAnswer, TagRequest,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ClientError;
use crate::http::{client, send, send_json};

/// Time limit of a call that is answered at once.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// Time limit of a call that reads objects.
const SUSPECT_LIMIT: Duration = Duration::from_mins(10);

/// A client with the worker's own token. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    join_token: String,
    token: Arc<RwLock<String>>,
}

impl Client {
    /// A client of the coordinator at `url`; the join token is good for enrolment only.
    pub fn new(url: &str, join_token: &str) -> Self {
        Self {
            http: client(),
            base: url.trim_end_matches('/').to_owned(),
            join_token: join_token.to_owned(),
            token: Arc::default(),
        }
    }

    /// The HTTP client, for transfers by presigned URL.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Joins the farm; later calls use the token that this gives.
    pub async fn enrol(&self, request: &EnrolRequest) -> Result<EnrolResponse, ClientError> {
        let url = format!("{}/worker/v1/enrol", self.base);
        let builder = self.http.post(&url).bearer_auth(&self.join_token).json(request);
        let response: EnrolResponse = send_json(&url, builder.timeout(CALL_LIMIT)).await?;
        self.token.write().unwrap_or_else(PoisonError::into_inner).clone_from(&response.token);
        Ok(response)
    }

    /// Exchanges states. Held open by the coordinator for up to `wait_millis`.
    pub async fn sync(&self, request: &SyncRequest) -> Result<SyncResponse, ClientError> {
        let limit = CALL_LIMIT + Duration::from_millis(request.wait_millis);
        self.call("sync", request, limit).await
    }

    /// Addresses of objects.
    pub async fn objects(&self, request: &ObjectsRequest) -> Result<ObjectsResponse, ClientError> {
        self.call("objects", request, CALL_LIMIT).await
    }

    /// Tells of objects that are damaged or missing; the coordinator looks for itself, which takes as
    /// long as reading them.
    pub async fn suspect(&self, request: &SuspectRequest) -> Result<SuspectResponse, ClientError> {
        self.call("objects/suspect", request, SUSPECT_LIMIT).await
    }

    /// Looks steps up by what they read.
    pub async fn look_up(&self, request: &LookupRequest) -> Result<LookupResponse, ClientError> {
        self.call("cache/lookup", request, CALL_LIMIT).await
    }

    /// Sends log lines.
    pub async fn logs(&self, chunk: &LogChunk) -> Result<(), ClientError> {
        self.report("logs", chunk).await
    }

    /// Reports steps.
    pub async fn steps(&self, report: &StepsReport) -> Result<(), ClientError> {
        self.report("steps", report).await
    }

    /// Reports a slice.
    pub async fn slice(&self, report: &SliceReport) -> Result<(), ClientError> {
        self.report("slices", report).await
    }

    /// Reports that the steps of a stage have ended.
    pub async fn done(&self, report: &DoneReport) -> Result<(), ClientError> {
        self.report("done", report).await
    }

    /// Reports the end of a stage.
    pub async fn result(&self, report: &ResultReport) -> Result<(), ClientError> {
        self.report("result", report).await
    }

    /// Asks for the right to move a tag, or says what became of it.
    pub async fn tag(&self, request: &TagRequest) -> Result<TagAnswer, ClientError> {
        self.call("tags", request, CALL_LIMIT).await
    }

    /// Passes a message to an agent. Held open by the coordinator for a while.
    pub async fn agent(&self, call: &AgentCall) -> Result<AgentAnswer, ClientError> {
        self.call("agent", call, CALL_LIMIT * 2).await
    }

    fn bearer(&self) -> String {
        self.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn call<T: DeserializeOwned>(
        &self,
        name: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let url = format!("{}/worker/v1/{name}", self.base);
        let builder = self.http.post(&url).bearer_auth(self.bearer()).json(body);
        send_json(&url, builder.timeout(limit)).await
    }

    async fn report(&self, name: &str, body: &impl Serialize) -> Result<(), ClientError> {
        let url = format!("{}/worker/v1/{name}", self.base);
        let builder = self.http.post(&url).bearer_auth(self.bearer()).json(body);
        send(&url, builder.timeout(CALL_LIMIT)).await.map(drop)
    }
}
