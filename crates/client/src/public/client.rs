//! Calls of `/v1`.

use std::path::Path;
use std::time::{Duration, Instant};

use api::public::v1::{
    AgentMessages, AgentPoll, AgentReply, BuildPage, BuildRequest, BuildView, CheckView,
    ContextNegotiation, ContextUpload, LogLine, PlanRequest, PlanView, ProjectSettings,
    ProjectView, PurgeView, UploadTarget, WhyView, WorkerView,
};
use common::{BuildId, ProjectName, StageId};
use futures_util::StreamExt as _;
use reqwest::header::{ACCEPT, CONTENT_LENGTH};
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::events::{Event, EventReader};
use crate::ClientError;
use crate::http::{client, send, send_json, unreachable};

/// Time limit of a call that is answered at once.
const CALL_LIMIT: Duration = Duration::from_mins(1);
/// Attempts of a call that may be repeated.
const ATTEMPTS: u32 = 5;
/// How long an object store that does not take a part is asked again, and the longest pause.
const UPLOAD_PATIENCE: Duration = Duration::from_mins(2);
/// How often a part is sent again that arrived as something else.
const MAX_MISMATCHES: u32 = 3;
const LONGEST_UPLOAD_PAUSE: Duration = Duration::from_secs(5);
/// How long a stream that broke is tried to be taken up again.
const RESUME_LIMIT: Duration = Duration::from_mins(2);

/// A client of one coordinator.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Client {
    /// A client of the coordinator at `url`.
    pub fn new(url: &str, token: Option<&str>) -> Self {
        let base = url.trim_end_matches('/').to_owned();
        Self { http: client(), base, token: token.map(str::to_owned) }
    }

    fn request(&self, method: reqwest::Method, url: &str) -> reqwest::RequestBuilder {
        let builder = self.http.request(method, url);
        match &self.token {
            Some(token) => builder.bearer_auth(token),
            None => builder,
        }
    }

    /// Asks which parts of a context are missing.
    pub async fn negotiate(
        &self,
        upload: &ContextUpload,
    ) -> Result<ContextNegotiation, ClientError> {
        let url = format!("{}/v1/contexts", self.base);
        self.repeat(|| self.request(reqwest::Method::POST, &url).json(upload), &url).await
    }

    /// Sends one part.
    pub async fn upload(
        &self,
        target: &UploadTarget,
        path: &Path,
        size_bytes: u64,
    ) -> Result<(), ClientError> {
        let mut pause = Duration::from_millis(200);
        let start = Instant::now();
        let mut mismatches = 0;
        loop {
            match self.upload_once(target, path, size_bytes).await {
                // Changed on its way; a file that changes itself never matches.
                Err(error) if error.is_mismatch() && mismatches < MAX_MISMATCHES => mismatches += 1,
                Err(error) if error.is_transient() && start.elapsed() < UPLOAD_PATIENCE => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_UPLOAD_PAUSE);
                }
                result => return result,
            }
        }
    }

    async fn upload_once(
        &self,
        target: &UploadTarget,
        path: &Path,
        size_bytes: u64,
    ) -> Result<(), ClientError> {
        let file = tokio::fs::File::open(path).await.map_err(|source| file_error(path, source))?;
        let stream = tokio_util::io::ReaderStream::with_capacity(file, 256 << 10);
        let mut builder = self
            .http
            .put(&target.url)
            .timeout(Duration::from_mins(30))
            .header(CONTENT_LENGTH, size_bytes);
        for (name, value) in &target.headers {
            builder = builder.header(name, value);
        }
        let sent = builder.body(reqwest::Body::wrap_stream(stream)).send().await;
        let response = sent.map_err(|error| unreachable("the object store", &error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let text = response.text().await.unwrap_or_default();
        let message = text.chars().take(200).collect();
        Err(ClientError::Store { status: status.as_u16(), message })
    }

    /// Submits a build. Repeating it with the same key is harmless.
    pub async fn submit(
        &self,
        request: &BuildRequest,
        key: &str,
    ) -> Result<BuildView, ClientError> {
        let url = format!("{}/v1/builds", self.base);
        let build = || {
            self.request(reqwest::Method::POST, &url).header("idempotency-key", key).json(request)
        };
        self.repeat(build, &url).await
    }

    /// What is unwise in a Dockerfile, and what it offers.
    pub async fn check(&self, request: &BuildRequest) -> Result<CheckView, ClientError> {
        let url = format!("{}/v1/checks", self.base);
        self.repeat(|| self.request(reqwest::Method::POST, &url).json(request), &url).await
    }

    /// What a build would do.
    pub async fn plan(&self, request: &PlanRequest) -> Result<PlanView, ClientError> {
        let url = format!("{}/v1/plans", self.base);
        self.repeat(|| self.request(reqwest::Method::POST, &url).json(request), &url).await
    }

    /// One build.
    pub async fn build(&self, id: BuildId) -> Result<BuildView, ClientError> {
        self.get(&format!("/v1/builds/{id}")).await
    }

    /// The newest builds.
    pub async fn builds(&self) -> Result<BuildPage, ClientError> {
        self.get("/v1/builds").await
    }

    /// The workers.
    pub async fn workers(&self) -> Result<Vec<WorkerView>, ClientError> {
        self.get("/v1/workers").await
    }

    /// Ends a build.
    pub async fn cancel(&self, id: BuildId) -> Result<BuildView, ClientError> {
        let url = format!("{}/v1/builds/{id}/cancel", self.base);
        self.repeat(|| self.request(reqwest::Method::POST, &url), &url).await
    }

    /// Runs what failed of a build again. To ask twice does no harm.
    pub async fn retry(&self, id: BuildId) -> Result<BuildView, ClientError> {
        let url = format!("{}/v1/builds/{id}/retry", self.base);
        self.repeat(|| self.request(reqwest::Method::POST, &url), &url).await
    }

    /// Deletes what a build has made. To ask twice does no harm.
    pub async fn purge(&self, id: BuildId) -> Result<PurgeView, ClientError> {
        let url = format!("{}/v1/builds/{id}/purge", self.base);
        self.repeat(|| self.request(reqwest::Method::POST, &url), &url).await
    }

    /// The projects.
    pub async fn projects(&self) -> Result<Vec<ProjectView>, ClientError> {
        self.get("/v1/projects").await
    }

    /// Changes settings of a project.
    pub async fn set_project(
        &self,
        name: &ProjectName,
        settings: &ProjectSettings,
    ) -> Result<ProjectView, ClientError> {
        let url = format!("{}/v1/projects/{name}", self.base);
        self.repeat(|| self.request(reqwest::Method::PATCH, &url).json(settings), &url).await
    }

    /// Why the steps of a build ran.
    pub async fn why(&self, id: BuildId) -> Result<WhyView, ClientError> {
        self.get(&format!("/v1/builds/{id}/why")).await
    }

    /// Messages to the agents that came with a build. Held open by the coordinator for as long as the
    /// poll says.
    pub async fn poll_agent(
        &self,
        id: BuildId,
        poll: &AgentPoll,
    ) -> Result<AgentMessages, ClientError> {
        let url = format!("{}/v1/builds/{id}/agent", self.base);
        let limit = CALL_LIMIT + Duration::from_millis(poll.wait_millis);
        let request = self.request(reqwest::Method::POST, &url).json(poll);
        send_json(&url, request.timeout(limit)).await
    }

    /// Answers a message to an agent.
    pub async fn answer_agent(&self, id: BuildId, reply: &AgentReply) -> Result<(), ClientError> {
        let url = format!("{}/v1/builds/{id}/agent/answers", self.base);
        let mut pause = Duration::from_millis(200);
        for attempt in 1.. {
            let request = self.request(reqwest::Method::POST, &url).json(reply);
            match send(&url, request.timeout(CALL_LIMIT)).await {
                Err(error) if error.is_transient() && attempt < ATTEMPTS => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                result => return result.map(drop),
            }
        }
        Ok(())
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let url = format!("{}{path}", self.base);
        self.repeat(|| self.request(reqwest::Method::GET, &url), &url).await
    }

    async fn repeat<T: DeserializeOwned>(
        &self,
        build: impl Fn() -> reqwest::RequestBuilder,
        url: &str,
    ) -> Result<T, ClientError> {
        let mut pause = Duration::from_millis(200);
        let mut attempt = 1;
        loop {
            match send_json(url, build().timeout(CALL_LIMIT)).await {
                Err(error) if error.is_transient() && attempt < ATTEMPTS => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// Sends the view of a build into `output` at each change, until the build has ended. A broken
    /// connection is taken up again.
    pub async fn follow(
        &self,
        id: BuildId,
        output: mpsc::Sender<BuildView>,
    ) -> Result<(), ClientError> {
        let url = format!("{}/v1/builds/{id}/events", self.base);
        let read = |event: &Event| {
            let view: BuildView = parse(&url, &event.data)?;
            let ended = view.state.is_terminal();
            Ok((Some(view), ended))
        };
        self.stream(&url, read, output).await
    }

    /// Sends the lines of a build's log into `output`; with `follow` until the build has ended.
    pub async fn log(
        &self,
        id: BuildId,
        stage: Option<StageId>,
        follow: bool,
        output: mpsc::Sender<LogLine>,
    ) -> Result<(), ClientError> {
        let mut url = format!("{}/v1/builds/{id}/logs?follow={follow}", self.base);
        if let Some(stage) = stage {
            url = format!("{url}&stage={stage}");
        }
        let read = |event: &Event| match event.name.as_str() {
            "log" => Ok((Some(parse(&url, &event.data)?), false)),
            other => Ok((None, other == "end")),
        };
        self.stream(&url, read, output).await
    }

    /// Reads events until `read` says that one was the last.
    async fn stream<T>(
        &self,
        url: &str,
        read: impl Fn(&Event) -> Result<(Option<T>, bool), ClientError>,
        output: mpsc::Sender<T>,
    ) -> Result<(), ClientError> {
        let mut last_id: Option<String> = None;
        let mut broken_since: Option<Instant> = None;
        loop {
            let mut builder =
                self.request(reqwest::Method::GET, url).header(ACCEPT, "text/event-stream");
            if let Some(id) = &last_id {
                builder = builder.header("last-event-id", id);
            }
            match send(url, builder).await {
                Ok(response) => {
                    let mut reader = EventReader::new(response);
                    while let Ok(Some(event)) = reader.next().await {
                        broken_since = None;
                        last_id = event.id.clone().or(last_id);
                        let (item, ended) = read(&event)?;
                        if let Some(item) = item
                            && output.send(item).await.is_err()
                        {
                            return Ok(());
                        }
                        if ended {
                            return Ok(());
                        }
                    }
                }
                Err(error)
                    if error.is_transient()
                        && broken_since.is_none_or(|since| since.elapsed() < RESUME_LIMIT) => {}
                Err(error) => return Err(error),
            }
            broken_since.get_or_insert_with(Instant::now);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Downloads what a presigned address leads to.
    pub async fn download(&self, url: &str, path: &Path) -> Result<u64, ClientError> {
        let response = send("the object store", self.http.get(url)).await?;
        let mut file =
            tokio::fs::File::create(path).await.map_err(|source| file_error(path, source))?;
        let mut stream = response.bytes_stream();
        let mut size = 0;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| unreachable("the object store", &error))?;
            size += chunk.len() as u64;
            file.write_all(&chunk).await.map_err(|source| file_error(path, source))?;
        }
        file.flush().await.map_err(|source| file_error(path, source))?;
        Ok(size)
    }
}

fn file_error(path: &Path, source: std::io::Error) -> ClientError {
    ClientError::File { path: path.display().to_string(), source }
}

fn parse<T: DeserializeOwned>(url: &str, text: &str) -> Result<T, ClientError> {
    serde_json::from_str(text)
        .map_err(|error| ClientError::Malformed { url: url.to_owned(), message: error.to_string() })
}
