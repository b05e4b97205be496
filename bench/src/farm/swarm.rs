//! Many workers that only talk: what a coordinator and its database can bear.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use api::WORKER_PROTOCOL;
use api::public::v1::{BuildRequest, TimingView};
use api::worker::v1::{Assignment, EnrolRequest, Job, ResultReport, StageOutcome, SyncRequest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::{Platform, SessionId, StageId, WorkerId};
use e2e::{Farm, FarmOptions};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::rows::Finding;
use super::{history, processors};
use crate::workloads::nonce;

/// Workers of the swarm, each with one slot.
const WORKERS: usize = 1_000;
/// Stages of one build.
const STAGES: usize = 50;
/// What is there to do when the throughput is measured: stages, and as many exports, since an image
/// without layers is a worker's matter.
const BACKLOG: usize = 10_000;
/// Builds of one stage for the latency, and the pause between them.
const SINGLES: Arrivals = Arrivals { builds: 500, stages: 1, pause: Duration::from_millis(20) };
/// Builds of ten stages that are ready at once.
const BURSTS: Arrivals = Arrivals { builds: 100, stages: 10, pause: Duration::from_millis(100) };
/// Finished stages in the database for the second measurement.
const FINISHED: usize = 1_000_000;

/// Builds that arrive while all workers wait. Each stage has an export, which a worker gets as well.
struct Arrivals {
    builds: usize,
    stages: usize,
    pause: Duration,
}

/// `dispatch`: latency and throughput, with an empty and with a full database.
pub(super) fn dispatch(_: usize) -> anyhow::Result<Vec<Finding>> {
    let farm = Farm::start(FarmOptions {
        workers: 0,
        lost_after_secs: 60,
        is_durable: true,
        ..FarmOptions::default()
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut found = Vec::new();
    for finished in ["an empty database", "10⁶ finished stages"] {
        let Measured { singles, bursts, per_second, processors } =
            runtime.block_on(measure(&farm))?;
        for (name, waits) in [("one stage at a time", singles), ("ten at once", bursts)] {
            let at = |part: usize| waits.get(waits.len() * part / 100).copied();
            let [half, most] = [at(50), at(99)].map(|wait| wait.unwrap_or(f64::NAN));
            found.push(Finding::new(
                format!("ready to running, 1,000 workers, {name}, {finished}"),
                format!("p50 {half:.1} ms, p99 {most:.1} ms"),
                "p50 ≤ 5 ms, p99 ≤ 25 ms",
            ));
        }
        found.push(Finding::new(
            format!("life cycles of stages, {finished}"),
            format!(
                "{per_second:.0} per second with the workers on the same processors; \
                 coordinator and Postgres took {:.2} ms each: {:.0} per second on 2 processors",
                processors * 1e3,
                2.0 / processors
            ),
            "≥ 2,000 per second",
        ));
        if found.len() == 3 {
            history::fill(&farm, FINISHED)?;
        }
    }
    Ok(found)
}

struct Measured {
    /// From ready to the worker having it, in milliseconds, shortest first: of [`SINGLES`].
    singles: Vec<f64>,
    /// Of [`BURSTS`].
    bursts: Vec<f64>,
    per_second: f64,
    /// Processor seconds of coordinator and Postgres for each of those.
    processors: f64,
}

async fn measure(farm: &Farm) -> anyhow::Result<Measured> {
    let builds = client::public::Client::new(farm.address(), Some(farm.token()));
    for _ in 0..BACKLOG / STAGES / 2 {
        submit(&builds, STAGES).await?;
    }
    let unplanned = "select count(*) from build where state in ('queued', 'planning')";
    while farm.query(unplanned)?.trim() != "0" {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let swarm = Swarm::enrol(farm).await?;
    // Throughput: all that waits is run down.
    let programs = ["slipway-coordin", "postgres"];
    let before = processors::seconds(&programs)?;
    let start = Instant::now();
    let mut seen = swarm.begin();
    while swarm.ended.load(Ordering::Relaxed) < BACKLOG {
        let ended = swarm.ended.load(Ordering::Relaxed);
        ensure!(start.elapsed() < Duration::from_mins(2), "only {ended} stages have ended");
        if let Some(error) = swarm.trouble.get() {
            bail!("a simulated worker: {error:#}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let count = f64::from(u32::try_from(BACKLOG)?);
    let per_second = count / start.elapsed().as_secs_f64();
    let processors = (processors::seconds(&programs)? - before) / count;
    while seen.try_recv().is_ok() {}
    // Latency: all wait, and some work arrives.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let singles = waits(farm, &builds, &mut seen, &SINGLES).await?;
    let bursts = waits(farm, &builds, &mut seen, &BURSTS).await?;
    swarm.stop().await;
    Ok(Measured { singles, bursts, per_second, processors })
}

/// How long the stages of some builds wait from when they are ready until a worker has them, in
/// milliseconds, shortest first.
async fn waits(
    farm: &Farm,
    builds: &client::public::Client,
    seen: &mut mpsc::UnboundedReceiver<(StageId, f64)>,
    arrivals: &Arrivals,
) -> anyhow::Result<Vec<f64>> {
    for _ in 0..arrivals.builds {
        submit(builds, arrivals.stages).await?;
        tokio::time::sleep(arrivals.pause).await;
    }
    let count = arrivals.builds * arrivals.stages * 2;
    let mut had = HashMap::new();
    while had.len() < count {
        let (stage, when) = seen.recv().await.context("the swarm has ended")?;
        had.entry(stage).or_insert(when);
    }
    let text = farm.query(
        "select id, extract(epoch from ready_at) from stage order by ready_at desc limit 5000",
    )?;
    let mut waits = Vec::new();
    for line in text.lines() {
        let Some((id, ready)) = line.trim().split_once('|') else { continue };
        if let Some(when) = had.get(&StageId(id.parse()?)) {
            waits.push((when - ready.parse::<f64>()?) * 1e3);
        }
    }
    ensure!(waits.len() == count, "{} stages were seen", waits.len());
    waits.sort_by(f64::total_cmp);
    Ok(waits)
}

/// Submits a build of stages beside each other that nobody has run before.
async fn submit(builds: &client::public::Client, stages: usize) -> anyhow::Result<()> {
    let own = nonce(0);
    let mut text = String::new();
    let mut targets = Vec::new();
    for stage in 0..stages {
        text.push_str(&format!("FROM scratch AS part-{stage}\nRUN echo {own} {stage}\n"));
        let name = format!("part-{stage}");
        targets.push(serde_json::json!({"name": name, "target": name}));
    }
    let content = BASE64_STANDARD.encode(text);
    let request: BuildRequest = serde_json::from_value(serde_json::json!({
        "project": "default",
        "source": {
            "kind": "context",
            "dockerfile": {"name": "Dockerfile", "content_base64": content},
        },
        "targets": targets,
    }))?;
    builds.submit(&request, &own).await?;
    Ok(())
}

struct Swarm {
    workers: Vec<(WorkerId, client::worker::Client)>,
    ended: Arc<AtomicUsize>,
    /// What first went wrong.
    trouble: Arc<OnceLock<anyhow::Error>>,
    stop: CancellationToken,
    tasks: tokio_util::task::TaskTracker,
}

impl Swarm {
    async fn enrol(farm: &Farm) -> anyhow::Result<Self> {
        let token = farm.make_token("workers")?;
        let mut workers = Vec::new();
        for number in 0..WORKERS {
            let client = client::worker::Client::new(farm.address(), &token);
            let worker = WorkerId(uuid::Uuid::now_v7());
            let request = EnrolRequest {
                worker,
                name: format!("simulated-{number}"),
                platforms: vec![Platform::host()],
                labels: Vec::new(),
                cpu_millis: 0,
                memory_bytes: 0,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                protocol: WORKER_PROTOCOL,
            };
            client.enrol(&request).await?;
            workers.push((worker, client));
        }
        Ok(Self {
            workers,
            ended: Arc::default(),
            trouble: Arc::default(),
            stop: CancellationToken::new(),
            tasks: tokio_util::task::TaskTracker::new(),
        })
    }

    /// Lets all of them work. Gives the stages as they come, and when.
    fn begin(&self) -> mpsc::UnboundedReceiver<(StageId, f64)> {
        let (seen, had) = mpsc::unbounded_channel();
        for (worker, client) in &self.workers {
            let worker = Simulated {
                id: *worker,
                session: SessionId(uuid::Uuid::now_v7()),
                client: client.clone(),
                seen: seen.clone(),
                ended: Arc::clone(&self.ended),
            };
            let (stop, trouble) = (self.stop.clone(), Arc::clone(&self.trouble));
            self.tasks.spawn(async move {
                if let Some(Err(error)) = stop.run_until_cancelled(worker.run()).await {
                    trouble.get_or_init(|| error);
                }
            });
        }
        had
    }

    async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

struct Simulated {
    id: WorkerId,
    session: SessionId,
    client: client::worker::Client,
    seen: mpsc::UnboundedSender<(StageId, f64)>,
    ended: Arc<AtomicUsize>,
}

impl Simulated {
    async fn run(self) -> anyhow::Result<()> {
        loop {
            let request = SyncRequest {
                worker: self.id,
                session: self.session,
                slots: 1,
                free_slots: 1,
                draining: false,
                held: Vec::new(),
                wait_millis: 20_000,
            };
            let Ok(response) = self.client.sync(&request).await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            for assignment in response.assignments {
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
                self.seen.send((assignment.lease.stage, now))?;
                self.finish(assignment).await?;
                self.ended.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn finish(&self, assignment: Assignment) -> anyhow::Result<()> {
        let layers = match assignment.job {
            Job::Stage(job) => job.base_layers,
            Job::Export(_) => Vec::new(),
        };
        let report = ResultReport {
            lease: assignment.lease,
            outcome: StageOutcome::Succeeded { layers, exports: Vec::new() },
            timing: TimingView::default(),
            slices_read: Vec::new(),
            uploaded_bytes: 0,
        };
        Ok(self.client.result(&report).await?)
    }
}
