//! A database with builds, stages and workers in it.

use common::cache_key::KeyPart;
use common::image::{Layer, LayerOrigin};
use common::outcome::{Failure, FailureClass, LineRange};
use common::stage::{StageKind, StageState};
use common::{BuildId, Digest, Domain, Lease, Platform, SessionId, StageId, Trust, WorkerId};
use serde_json::json;
use store::{
    BuildOrder, Claim, Exchange, Finished, Held, NewBuild, NewEdge, NewPlan, NewStage, NewStep,
    Outcome, Placing, Spent, StepNews, Store, Submitted, SyncState, WorkerFacts,
};
use testkit::Postgres;
use uuid::Uuid;

/// A private server with one database, its schema in place.
pub(crate) struct Database {
    pub(crate) store: Store,
    pub(crate) url: String,
    pub(crate) postgres: Postgres,
    _directory: tempfile::TempDir,
}

/// A worker and the run of its process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) session: SessionId,
}

impl Database {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).unwrap();
        let postgres = testkit::postgres(directory.path(), testkit::Durability::Scratch).unwrap();
        let url = postgres.database("races").unwrap();
        let store = Store::connect(&url, 8).await.unwrap();
        store.migrate().await.unwrap();
        Self { store, url, postgres, _directory: directory }
    }

    /// A build that nobody has planned.
    pub(crate) async fn submit(&self) -> BuildId {
        match self.store.submit_build(&new_build(None)).await.unwrap() {
            Submitted::New(build) => build,
            Submitted::Existing(_) => panic!("a build without a key exists"),
        }
    }

    /// A running build of these stages.
    pub(crate) async fn plan(&self, stages: Vec<NewStage>, edges: Vec<NewEdge>) -> BuildId {
        let build = self.submit().await;
        let planner = Uuid::new_v4();
        let claimed = self.store.claim_build(planner).await.unwrap().unwrap();
        assert_eq!(claimed.id, build);
        let plan = NewPlan {
            context: None,
            inputs: Vec::new(),
            stages,
            edges,
            warnings: Vec::new(),
            first_keys: Vec::new(),
        };
        self.store.save_plan(build, &claimed.domain, planner, &plan).await.unwrap();
        build
    }

    /// A running build of these stages, of strangers' code.
    pub(crate) async fn plan_untrusted(&self, stages: Vec<NewStage>) -> BuildId {
        let new = NewBuild { domain: untrusted(), ..new_build(None) };
        self.store.submit_build(&new).await.unwrap();
        let planner = Uuid::new_v4();
        let claimed = self.store.claim_build(planner).await.unwrap().unwrap();
        assert_eq!(claimed.domain, untrusted());
        let plan = plan(stages, Vec::new(), Vec::new());
        self.store.save_plan(new.id, &claimed.domain, planner, &plan).await.unwrap();
        new.id
    }

    /// A running build of these stages, whoever else plans at the same time.
    pub(crate) async fn plan_alone(&self, stages: Vec<NewStage>) -> BuildId {
        self.submit().await;
        let planner = Uuid::new_v4();
        let claimed = self.store.claim_build(planner).await.unwrap().unwrap();
        let plan = plan(stages, Vec::new(), Vec::new());
        self.store.save_plan(claimed.id, &claimed.domain, planner, &plan).await.unwrap();
        claimed.id
    }

    /// Tries to store a plan whose first steps the cache did not have.
    pub(crate) async fn try_plan(
        &self,
        stages: Vec<NewStage>,
        first_keys: Vec<Digest>,
    ) -> store::Result<usize> {
        let build = self.submit().await;
        let planner = Uuid::new_v4();
        let claimed = self.store.claim_build(planner).await.unwrap().unwrap();
        let plan = plan(stages, Vec::new(), first_keys);
        self.store.save_plan(build, &claimed.domain, planner, &plan).await
    }

    /// A live worker with free slots.
    pub(crate) async fn worker(&self, name: &str) -> Worker {
        let id = WorkerId(Uuid::now_v7());
        let facts = WorkerFacts {
            id,
            name: name.to_owned(),
            platforms: vec![Platform::host()],
            version: "1".to_owned(),
            labels: Vec::new(),
            cpu_millis: 0,
            memory_bytes: 0,
        };
        self.store.enrol_worker(&facts).await.unwrap();
        let worker = Worker { id, session: SessionId(Uuid::new_v4()) };
        self.sync(worker, &[]).await;
        worker
    }

    /// The worker says that it holds these stages, and runs them.
    pub(crate) async fn sync(&self, worker: Worker, leases: &[Lease]) -> SyncState {
        let held = |lease: &Lease| Held { lease: *lease, parked: false, wishes: Vec::new() };
        let held: Vec<Held> = leases.iter().map(held).collect();
        self.exchange(worker, held).await
    }

    /// The worker says that it holds these: together with others if that does, or alone.
    pub(crate) async fn exchange(&self, worker: Worker, held: Vec<Held>) -> SyncState {
        let Worker { id, session } = worker;
        let (slots, free_slots, draining) = (4, 4, false);
        let one = Exchange { worker: id, session, slots, free_slots, draining, held };
        let mut together = self.store.exchange(std::slice::from_ref(&one)).await.unwrap();
        match together.remove(&id) {
            Some(done) => done.state,
            None => self.store.exchange_alone(&one).await.unwrap().state,
        }
    }

    pub(crate) async fn claim(&self, stage: StageId, worker: Worker) -> Option<Lease> {
        let claim = Claim { stage, worker: worker.id, session: worker.session };
        let given = self.store.claim_stages(&[claim]).await.unwrap();
        given.first().map(|given| given.lease)
    }

    /// The state of each stage of a build.
    pub(crate) async fn states(&self, build: BuildId) -> Vec<String> {
        let stages = self.store.build_stages(build).await.unwrap();
        stages.into_iter().map(|stage| stage.state).collect()
    }

    pub(crate) async fn state(&self, build: BuildId) -> String {
        self.store.build(build).await.unwrap().state
    }
}

fn plan(stages: Vec<NewStage>, edges: Vec<NewEdge>, first_keys: Vec<Digest>) -> NewPlan {
    NewPlan { context: None, inputs: Vec::new(), stages, edges, warnings: Vec::new(), first_keys }
}

/// The trust domain of builds, where nothing else is said.
pub(crate) fn trusted() -> Domain {
    Domain { project: "default".parse().unwrap(), trust: Trust::Trusted }
}

/// The other one of the same project.
pub(crate) fn untrusted() -> Domain {
    Domain { trust: Trust::Untrusted, ..trusted() }
}

pub(crate) fn new_build(request_key: Option<&str>) -> NewBuild {
    NewBuild {
        id: BuildId(Uuid::now_v7()),
        domain: trusted(),
        request: json!({}),
        request_key: request_key.map(str::to_owned),
        dockerfile: "Dockerfile".to_owned(),
        target: None,
        secrets: Vec::new(),
        order: BuildOrder::default(),
    }
}

/// A stage of one step that waits for so many bases.
pub(crate) fn stage(name: &str, bases_missing: u32) -> NewStage {
    let state = if bases_missing == 0 { StageState::Ready } else { StageState::Waiting };
    let step = NewStep {
        number: 2,
        display: format!("RUN {name}"),
        lines: LineRange { start: 2, end: 2 },
        key: Digest::of(name.as_bytes()),
        key_parts: vec![KeyPart { name: "command".into(), value: name.into() }],
        cached: false,
    };
    NewStage {
        id: StageId(Uuid::now_v7()),
        kind: StageKind::Stage,
        label: name.to_owned(),
        state,
        platform: Platform::host(),
        depth: 1,
        bases_missing,
        plan: json!({}),
        first_step: 2,
        base_layers: None,
        make_slices: Vec::new(),
        layers: None,
        slices: Vec::new(),
        steps: vec![step],
        placing: Placing::default(),
        key: None,
        may_attach: false,
        is_goal: true,
    }
}

pub(crate) fn base_edge(consumer: &NewStage, producer: &NewStage) -> NewEdge {
    NewEdge { consumer: consumer.id, producer: producer.id, is_base: true }
}

pub(crate) fn layer(name: &str) -> Layer {
    let digest = Digest::of(name.as_bytes());
    Layer {
        diff_id: digest,
        blob: digest,
        size_bytes: 1,
        media_type: String::new(),
        origin: LayerOrigin::Farm,
    }
}

/// The step of a stage has ended; its layer may be stored.
pub(crate) fn done(layer: Option<&Layer>) -> StepNews {
    StepNews { number: 2, state: "done", timing: json!({}), layer: layer.cloned() }
}

pub(crate) fn spent() -> Spent {
    Spent { timing: json!({}), transfers: json!([]), uploaded_bytes: 0, millis: 0 }
}

pub(crate) fn finished(lease: Lease, outcome: Outcome) -> Finished {
    Finished { lease, outcome, spent: spent() }
}

pub(crate) fn succeeded(lease: Lease) -> Finished {
    finished(lease, Outcome::Succeeded { layers: vec![layer("result")], exports: Vec::new() })
}

pub(crate) fn failed(lease: Lease, class: FailureClass, retry: bool) -> Finished {
    let failure = Failure::new(class, "test", "it failed");
    finished(lease, Outcome::Failed { failure, step: Some(2), retry })
}
