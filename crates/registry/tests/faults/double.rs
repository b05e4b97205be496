//! A registry in memory with faults that a test asks for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use common::Digest;
use futures_util::StreamExt as _;

/// What goes wrong. Counts go down each time.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Answers with this status, and this `Retry-After`.
    pub(crate) refusals: Vec<(u16, Option<String>)>,
    /// Blobs that are cut off in the middle.
    pub(crate) cut_downloads: u32,
    /// Ranges are not known.
    pub(crate) no_ranges: bool,
    /// Chunks whose connection ends when half of them has arrived.
    pub(crate) cut_chunks: u32,
    /// Uploads that are forgotten when bytes come.
    pub(crate) lost_sessions: u32,
    /// Mounts are not known.
    pub(crate) no_mounts: bool,
    /// Only chunks are taken.
    pub(crate) only_chunks: bool,
    /// Longest body.
    pub(crate) max_body: Option<usize>,
    /// Shortest chunk.
    pub(crate) min_chunk: Option<usize>,
    /// HEAD is not known.
    pub(crate) no_head: bool,
    /// Manifests are not kept.
    pub(crate) forgets_manifests: bool,
    /// Manifests come with another one's digest.
    pub(crate) wrong_header: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// By repository and digest.
    pub(crate) blobs: BTreeMap<(String, String), Vec<u8>>,
    /// By repository and name.
    pub(crate) manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    uploads: HashMap<String, Vec<u8>>,
    /// Method and path of every request, and the length of its body.
    pub(crate) requests: Vec<(String, u64)>,
    pub(crate) faults: Faults,
}

/// A running one.
#[derive(Debug, Clone)]
pub(crate) struct Double {
    state: Arc<Mutex<Registry>>,
    pub(crate) host: String,
}

impl Double {
    pub(crate) async fn start(faults: Faults) -> Self {
        let state = Arc::new(Mutex::new(Registry { faults, ..Registry::default() }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { state, host }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, Registry> {
        self.state.lock().unwrap()
    }

    /// How many requests begin with these words.
    pub(crate) fn count(&self, beginning: &str) -> usize {
        let state = self.state();
        state.requests.iter().filter(|(request, _)| request.starts_with(beginning)).count()
    }
}

fn reply(status: u16, headers: &[(&str, String)], body: impl Into<Body>) -> Response {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, value);
    }
    builder.body(body.into()).unwrap()
}

/// Ends the connection without an answer, and without a word on standard error.
fn hang_up() -> ! {
    std::panic::resume_unwind(Box::new(()))
}

fn take(count: &mut u32) -> bool {
    let left = *count > 0;
    *count = count.saturating_sub(1);
    left
}

async fn answer(State(state): State<Arc<Mutex<Registry>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().trim_start_matches("/v2/").to_owned();
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let length = parts.headers.get("content-length");
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    {
        let mut state = state.lock().unwrap();
        let line = format!("{} {path}", parts.method);
        state.requests.push((line, length));
        if !state.faults.refusals.is_empty() {
            let (status, retry_after) = state.faults.refusals.remove(0);
            let headers: Vec<_> =
                retry_after.map(|value| ("retry-after", value)).into_iter().collect();
            return reply(status, &headers, "busy");
        }
        if parts.method == Method::HEAD && state.faults.no_head {
            return StatusCode::METHOD_NOT_ALLOWED.into_response();
        }
        if state.faults.max_body.is_some_and(|max| length > max as u64) {
            return StatusCode::PAYLOAD_TOO_LARGE.into_response();
        }
    }
    if let Some((repository, rest)) = path.split_once("/blobs/uploads/") {
        let repository = repository.to_owned();
        return upload(&state, &parts.method, &repository, rest, &query, &parts.headers, body)
            .await;
    }
    if let Some((repository, name)) = path.split_once("/manifests/") {
        let bytes = axum::body::to_bytes(body, 8 << 20).await.unwrap();
        return manifest(&state, &parts.method, repository, name, &parts.headers, bytes);
    }
    match path.split_once("/blobs/") {
        Some((repository, digest)) => blob(&state, repository, digest, &parts.headers),
        None => StatusCode::OK.into_response(),
    }
}

fn blob(state: &Mutex<Registry>, repository: &str, digest: &str, headers: &HeaderMap) -> Response {
    let mut state = state.lock().unwrap();
    let Some(bytes) = state.blobs.get(&(repository.to_owned(), digest.to_owned())).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let range = headers.get("range").filter(|_| !state.faults.no_ranges);
    let start: usize = range.map_or(0, |range| {
        range.to_str().unwrap().trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap()
    });
    let rest = bytes[start..].to_vec();
    let mut head = vec![("content-length", rest.len().to_string())];
    if range.is_some() {
        head.push(("content-range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len())));
    }
    let status = if range.is_some() { 206 } else { 200 };
    if take(&mut state.faults.cut_downloads) {
        let half = Bytes::from(rest[..rest.len() / 2].to_vec());
        let parts = [Ok(half), Err(std::io::Error::other("cut"))];
        return reply(status, &head, Body::from_stream(futures_util::stream::iter(parts)));
    }
    reply(status, &head, rest)
}

fn manifest(
    state: &Mutex<Registry>,
    method: &Method,
    repository: &str,
    name: &str,
    headers: &HeaderMap,
    bytes: Bytes,
) -> Response {
    let mut state = state.lock().unwrap();
    if method == Method::PUT {
        if !state.faults.forgets_manifests {
            let kind = headers.get("content-type").unwrap().to_str().unwrap().to_owned();
            for name in [name.to_owned(), Digest::of(&bytes).to_string()] {
                let entry = (kind.clone(), bytes.to_vec());
                state.manifests.insert((repository.to_owned(), name), entry);
            }
        }
        return StatusCode::CREATED.into_response();
    }
    let Some((kind, bytes)) = state.manifests.get(&(repository.to_owned(), name.to_owned())) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let digest = if state.faults.wrong_header { Digest::of(b"other") } else { Digest::of(bytes) };
    let head = [("content-type", kind.clone()), ("docker-content-digest", digest.to_string())];
    reply(200, &head, bytes.clone())
}

async fn upload(
    state: &Mutex<Registry>,
    method: &Method,
    repository: &str,
    id: &str,
    query: &HashMap<String, String>,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    if method == Method::POST {
        return begin(&mut state.lock().unwrap(), repository, query);
    }
    let mut stream = body.into_data_stream();
    let cut = {
        let mut state = state.lock().unwrap();
        let faults = &mut state.faults;
        if method != Method::GET && take(&mut faults.lost_sessions) {
            state.uploads.remove(id);
        }
        method == Method::PATCH && take(&mut state.faults.cut_chunks)
    };
    let length: usize =
        headers.get("content-length").map_or(0, |value| value.to_str().unwrap().parse().unwrap());
    let mut arrived = Vec::new();
    while let Some(chunk) = stream.next().await {
        let Ok(chunk) = chunk else { hang_up() };
        arrived.extend_from_slice(&chunk);
        if cut && arrived.len() >= length / 2 {
            arrived.truncate(length / 2);
            break;
        }
    }
    let mut state = state.lock().unwrap();
    let Registry { uploads, faults, blobs, .. } = &mut *state;
    let Some(upload) = uploads.get_mut(id) else { return StatusCode::NOT_FOUND.into_response() };
    if method == Method::PUT && faults.only_chunks && !arrived.is_empty() {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    if let Some(range) = headers.get("content-range") {
        let start = range.to_str().unwrap().split('-').next().unwrap().parse::<usize>().unwrap();
        if start != upload.len() {
            return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
        }
    }
    upload.extend_from_slice(&arrived);
    if cut {
        drop(state);
        hang_up();
    }
    if method == Method::PUT {
        let bytes = uploads.remove(id).unwrap();
        let digest = query["digest"].clone();
        if Digest::of(&bytes).to_string() != digest {
            return StatusCode::BAD_REQUEST.into_response();
        }
        blobs.insert((repository.to_owned(), digest), bytes);
        return StatusCode::CREATED.into_response();
    }
    let last = upload.len().saturating_sub(1);
    let head = [
        ("location", format!("/v2/{repository}/blobs/uploads/{id}")),
        ("range", format!("0-{last}")),
    ];
    reply(if method == Method::GET { 204 } else { 202 }, &head, Body::empty())
}

fn begin(state: &mut Registry, repository: &str, query: &HashMap<String, String>) -> Response {
    if let Some(digest) = query.get("mount") {
        let from = (query["from"].clone(), digest.clone());
        if state.faults.no_mounts {
            return StatusCode::METHOD_NOT_ALLOWED.into_response();
        }
        if let Some(bytes) = state.blobs.get(&from).cloned() {
            state.blobs.insert((repository.to_owned(), digest.clone()), bytes);
            return StatusCode::CREATED.into_response();
        }
    }
    let id = format!("upload-{}", state.requests.len());
    state.uploads.insert(id.clone(), Vec::new());
    let mut head = vec![("location", format!("/v2/{repository}/blobs/uploads/{id}"))];
    head.extend(state.faults.min_chunk.map(|length| ("oci-chunk-min-length", length.to_string())));
    reply(202, &head, Body::empty())
}
