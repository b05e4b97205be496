//! A coordinator and an object store in memory: just enough HTTP for the worker's calls.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use api::worker::v1::{
    Abandon, Assignment, EnrolResponse, GetUrl, HeldPhase, InputReady, LogChunk, ObjectKind,
    ObjectName, ObjectsRequest, ObjectsResponse, PutUrl, ResultReport, SliceInput, SliceReport,
    StepReport, StepsReport, SyncRequest, SyncResponse, TagAnswer, TagRequest, TagStep,
};
use common::Lease;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Longest body that the real one takes from a worker.
const BODY_BYTES: usize = 16 << 20;

/// What happened, and what is to happen.
#[derive(Default)]
pub(crate) struct State {
    /// Stages that a worker with a free slot may take.
    pub(crate) ready: VecDeque<Assignment>,
    given: Vec<Assignment>,
    pub(crate) abandon: Vec<Abandon>,
    pub(crate) enrolments: u32,
    pub(crate) syncs: Vec<(Instant, SyncRequest)>,
    pub(crate) steps: Vec<StepReport>,
    pub(crate) slices: Vec<SliceReport>,
    pub(crate) results: Vec<ResultReport>,
    pub(crate) logs: BTreeMap<(Lease, u32), LogChunk>,
    pub(crate) objects: HashMap<String, Vec<u8>>,
    /// Statuses to answer with before anything else, by the last part of the path.
    pub(crate) faults: HashMap<&'static str, VecDeque<u16>>,
    /// Nobody answers any more.
    pub(crate) is_down: bool,
    /// The next object is cut off after so many bytes.
    pub(crate) cut_next_object: Option<usize>,
    pub(crate) refused_bodies: u32,
}

/// A running coordinator.
#[derive(Clone)]
pub(crate) struct Coordinator {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    pub(crate) url: String,
}

pub(crate) fn object_path(kind: ObjectKind, digest: &common::Digest) -> String {
    format!("/objects/{kind:?}/{}", digest.hex())
}

impl Coordinator {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let coordinator = Self { state: Arc::default(), changed: Arc::default(), url };
        let server = coordinator.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move { server.converse(stream).await });
            }
        });
        coordinator
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes the state and wakes whoever waits for news.
    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_waiters();
    }

    pub(crate) fn put_object(&self, kind: ObjectKind, digest: &common::Digest, bytes: Vec<u8>) {
        self.state().objects.insert(object_path(kind, digest), bytes);
    }

    /// Waits until something is so.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&State) -> Option<T>,
    ) -> T {
        let limit = Instant::now() + Duration::from_mins(1);
        loop {
            if let Some(found) = look(&self.state()) {
                return found;
            }
            assert!(Instant::now() < limit, "it did not come to this: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn result(&self, lease: Lease) -> ResultReport {
        self.until("a result", |state| {
            state.results.iter().find(|result| result.lease == lease).cloned()
        })
        .await
    }

    /// All lines of a lease's log, in order; no chunk may be missing.
    pub(crate) fn lines(&self, lease: Lease) -> Vec<(u32, String)> {
        let state = self.state();
        let chunks: Vec<_> = state.logs.range((lease, 0)..=(lease, u32::MAX)).collect();
        for (position, ((_, number), _)) in chunks.iter().enumerate() {
            assert_eq!(*number as usize, position, "a chunk is missing");
        }
        let lines = chunks.into_iter().flat_map(|(_, chunk)| &chunk.lines);
        lines.map(|line| (line.step, line.text.clone())).collect()
    }

    async fn converse(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        while let Some((method, path, range, body)) = read_request(&mut stream).await {
            if self.state().is_down {
                return;
            }
            let (status, answer) = self.answer(&method, &path, range, body).await;
            let cut = if path.starts_with("/objects") && method == "GET" {
                self.state().cut_next_object.take()
            } else {
                None
            };
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", answer.len());
            let sent = &answer[..cut.unwrap_or(answer.len()).min(answer.len())];
            let whole = [head.as_bytes(), sent].concat();
            if stream.get_mut().write_all(&whole).await.is_err() || cut.is_some() {
                return;
            }
        }
    }

    async fn answer(
        &self,
        method: &str,
        path: &str,
        range: Option<(usize, usize)>,
        body: Vec<u8>,
    ) -> (u16, Vec<u8>) {
        if path.starts_with("/objects/") {
            let mut state = self.state();
            if method == "PUT" {
                state.objects.insert(path.to_owned(), body);
                return (200, Vec::new());
            }
            let Some(bytes) = state.objects.get(path) else { return (404, Vec::new()) };
            return match range {
                Some((start, end)) => (206, bytes[start..=end].to_vec()),
                None => (200, bytes.clone()),
            };
        }
        let call = path.rsplit('/').next().unwrap_or("");
        {
            let mut state = self.state();
            if body.len() > BODY_BYTES {
                state.refused_bodies += 1;
                return (413, Vec::new());
            }
            let fault = state.faults.get_mut(call).and_then(VecDeque::pop_front);
            if let Some(status) = fault {
                return (status, Vec::new());
            }
        }
        match call {
            "enrol" => {
                self.state().enrolments += 1;
                json(&EnrolResponse { token: "worker".into(), token_secs: 3600 })
            }
            "sync" => json(&self.sync(serde_json::from_slice(&body).unwrap()).await),
            "objects" => json(&self.presign(&serde_json::from_slice(&body).unwrap())),
            "logs" => {
                let chunk: LogChunk = serde_json::from_slice(&body).unwrap();
                self.change(|state| {
                    state.logs.insert((chunk.lease, chunk.chunk), chunk);
                });
                (204, Vec::new())
            }
            "steps" => {
                self.note(&body, |state, report: StepsReport| state.steps.extend(report.steps))
            }
            "slices" => self.note(&body, |state, report| state.slices.push(report)),
            "done" => (204, Vec::new()),
            "tags" => json(&match serde_json::from_slice::<TagRequest>(&body).unwrap().step {
                TagStep::Ask => TagAnswer::Granted { good_millis: 30_000 },
                TagStep::Moved | TagStep::Release => TagAnswer::Noted,
            }),
            "result" => self.note(&body, |state, report| state.results.push(report)),
            _ => (404, Vec::new()),
        }
    }

    fn note<T: serde::de::DeserializeOwned>(
        &self,
        body: &[u8],
        keep: impl FnOnce(&mut State, T),
    ) -> (u16, Vec<u8>) {
        let report = serde_json::from_slice(body).unwrap();
        self.change(|state| keep(state, report));
        (204, Vec::new())
    }

    async fn sync(&self, request: SyncRequest) -> SyncResponse {
        let until = tokio::time::Instant::now() + Duration::from_millis(request.wait_millis);
        self.state().syncs.push((Instant::now(), request.clone()));
        loop {
            let changed = self.changed.notified();
            let response = self.state().exchange(&request);
            let has_news = !response.assignments.is_empty()
                || !response.abandon.is_empty()
                || !response.inputs.is_empty();
            if has_news || tokio::time::Instant::now() >= until {
                return response;
            }
            let _ = tokio::time::timeout_at(until, changed).await;
        }
    }

    fn presign(&self, request: &ObjectsRequest) -> ObjectsResponse {
        let state = self.state();
        let place = |object: &ObjectName| object_path(object.kind, &object.digest);
        let get = request.get.iter().map(|object| GetUrl {
            digest: object.digest,
            url: format!("{}{}", self.url, place(object)),
        });
        let put = request.put.iter().map(|object| PutUrl {
            digest: object.digest,
            url: (!state.objects.contains_key(&place(object)))
                .then(|| format!("{}{}", self.url, place(object))),
            headers: Vec::new(),
        });
        ObjectsResponse { get: get.collect(), put: put.collect() }
    }
}

impl State {
    /// As the real one: what is given and not held is given again; free slots take what is ready;
    /// slices are named to whoever is parked for them; an abandon is told until it is obeyed.
    fn exchange(&mut self, request: &SyncRequest) -> SyncResponse {
        let held: HashSet<Lease> = request.held.iter().map(|held| held.lease).collect();
        let ended: HashSet<Lease> = self.results.iter().map(|result| result.lease).collect();
        let dropped: HashSet<Lease> = self.abandon.iter().map(|abandon| abandon.lease).collect();
        let is_new = |assignment: &&Assignment| {
            let lease = &assignment.lease;
            !held.contains(lease) && !ended.contains(lease) && !dropped.contains(lease)
        };
        let mut assignments: Vec<Assignment> = self.given.iter().filter(is_new).cloned().collect();
        let free = (request.free_slots as usize).saturating_sub(assignments.len());
        if !request.draining {
            for _ in 0..free {
                let Some(assignment) = self.ready.pop_front() else { break };
                self.given.push(assignment.clone());
                assignments.push(assignment);
            }
        }
        let abandon =
            self.abandon.iter().filter(|abandon| held.contains(&abandon.lease)).cloned().collect();
        let mut inputs = Vec::new();
        for stage in &request.held {
            let HeldPhase::Parked { waiting_for } = &stage.phase else { continue };
            let slices: Vec<SliceInput> = waiting_for
                .iter()
                .filter_map(|wish| {
                    self.slices.iter().find(|slice| {
                        slice.lease.stage == wish.stage && slice.selector == wish.selector
                    })
                })
                .map(slice_input)
                .collect();
            if !slices.is_empty() {
                inputs.push(InputReady { lease: stage.lease, slices });
            }
        }
        SyncResponse { assignments, abandon, inputs, drain: false, lost_after_millis: 15_000 }
    }
}

pub(crate) fn slice_input(slice: &SliceReport) -> SliceInput {
    SliceInput {
        stage: slice.lease.stage,
        selector: slice.selector.clone(),
        manifest: slice.manifest,
        inline_manifest: slice.inline_manifest.clone(),
        files: slice.files,
        content_bytes: slice.content_bytes,
    }
}

fn json(value: &impl Serialize) -> (u16, Vec<u8>) {
    (200, serde_json::to_vec(value).unwrap())
}

type Request = (String, String, Option<(usize, usize)>, Vec<u8>);

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut range) = (0, None);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "range" => {
                let (start, end) = value.strip_prefix("bytes=")?.split_once('-')?;
                range = Some((start.parse().ok()?, end.parse().ok()?));
            }
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((method, path, range, body))
}
