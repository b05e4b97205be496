//! Workers and work for them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use api::public::v1::LayerCompression;
use api::worker::v1::{Assignment, Job, ObjectKind, StageJob};
use common::cache_key::KeyBuilder;
use common::image::{ContainerConfig, Layer, LayerOrigin};
use common::outcome::LineRange;
use common::plan::{
    Base, CopyFrom, CopyOp, Op, PlannedStage, RunOp, SliceSelector, StageIndex, Step,
};
use common::{BuildId, Digest, Epoch, Lease, Platform, StageId, Trust};
use layer::{Compression, pack_upper};
use service::lifecycle::Lifecycle;
use tokio::task::JoinHandle;
use worker::Config;

use crate::coordinator::Coordinator;

/// A worker in this process, stopped hard when dropped.
pub(crate) struct Worker {
    pub(crate) config: Config,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) task: JoinHandle<()>,
    _data: tempfile::TempDir,
}

impl Worker {
    pub(crate) fn start(coordinator: &Coordinator, slots: u32) -> Self {
        Self::start_with(coordinator, slots, |_| {})
    }

    pub(crate) fn start_with(
        coordinator: &Coordinator,
        slots: u32,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut config: Config = serde_json::from_value(serde_json::json!({
            // Other tests may fill the disk meanwhile: that is no reason to forget layers.
            "worker": {"data_dir": data.path(), "slots": slots, "store_min_free_bytes": 0},
            "coordinator": {"url": coordinator.url, "token": "join"},
            "runtime": {"network": "isolated"},
        }))
        .unwrap();
        change(&mut config);
        let lifecycle = Lifecycle::new();
        let (run_config, run_lifecycle) = (config.clone(), lifecycle.clone());
        let task =
            tokio::spawn(async move { worker::run(run_config, &run_lifecycle).await.unwrap() });
        Self { config, lifecycle, task, _data: data }
    }

    /// Stops it, and looks at what it left.
    pub(crate) async fn stop(mut self) {
        self.lifecycle.stop();
        (&mut self.task).await.unwrap();
        let data = &self.config.worker.data_dir;
        let tmp = fs::read_dir(data.join("tmp")).unwrap();
        let names: Vec<_> = tmp.map(|entry| entry.unwrap().file_name()).collect();
        let left: Vec<_> = names.iter().filter(|name| *name != "runtime").collect();
        assert!(left.is_empty(), "left in tmp: {left:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&data.display().to_string()), "{mounts}");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.lifecycle.hard().cancel();
    }
}

/// A layer with busybox, in the coordinator's object store.
pub(crate) fn base(coordinator: &Coordinator) -> Layer {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    for name in ["bin", "tmp", "out"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in
        ["sh", "cat", "echo", "head", "mkdir", "seq", "sleep", "tail", "touch", "true", "yes"]
    {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    add_layer(coordinator, &root)
}

pub(crate) fn add_layer(coordinator: &Coordinator, root: &Path) -> Layer {
    let scratch = tempfile::tempdir().unwrap();
    let blob = scratch.path().join("blob");
    let packed = pack_upper(root, &[], &blob, Compression::Gzip).unwrap();
    coordinator.put_object(ObjectKind::Blob, &packed.blob, fs::read(blob).unwrap());
    Layer {
        diff_id: packed.diff_id,
        blob: packed.blob,
        size_bytes: packed.size_bytes,
        media_type: packed.media_type.to_owned(),
        origin: LayerOrigin::Farm,
    }
}

/// A stage under construction.
pub(crate) struct Stage {
    pub(crate) job: StageJob,
    pub(crate) lease: Lease,
}

pub(crate) fn stage(base_layers: &[Layer]) -> Stage {
    static EPOCH: AtomicI64 = AtomicI64::new(1);
    let lease = Lease {
        stage: StageId(uuid::Uuid::now_v7()),
        epoch: Epoch(EPOCH.fetch_add(1, Ordering::Relaxed)),
    };
    let stage = PlannedStage {
        index: StageIndex(0),
        source_index: 0,
        name: None,
        label: "stage-0".into(),
        lines: LineRange { start: 1, end: 1 },
        base: Base::Scratch,
        platform: Platform::host(),
        steps: Vec::new(),
        key: Digest::of(b"key"),
        config: ContainerConfig::default(),
        author: None,
        history: Vec::new(),
        demands: Vec::new(),
    };
    let job = StageJob {
        contexts: BTreeMap::new(),
        secrets: BTreeMap::new(),
        agents: Vec::new(),
        looks_up: false,
        base_is_new: false,
        fresh_caches: false,
        trust: Trust::Trusted,
        compression: LayerCompression::Gzip,
        stage,
        stage_ids: Vec::new(),
        images: Vec::new(),
        base_layers: base_layers.to_vec(),
        unstored_base: None,
        first_step: 2,
        context: None,
        make_slices: Vec::new(),
        inputs: Vec::new(),
    };
    Stage { job, lease }
}

impl Stage {
    /// The next step; the first one has number 2 and stands in line 2.
    fn step(mut self, op: Op, display: &str) -> Self {
        let number = u32::try_from(self.job.stage.steps.len()).unwrap() + 2;
        let (key, key_parts) = KeyBuilder::new().finish();
        let lines = LineRange { start: number, end: number };
        let display = display.to_owned();
        self.job.stage.steps.push(Step { number, lines, display, op, key, key_parts });
        self
    }

    pub(crate) fn run(self, script: &str) -> Self {
        let op = RunOp::new(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
        self.step(Op::Run(Box::new(op)), &format!("RUN {script}"))
    }

    pub(crate) fn copy(self, from: CopyFrom, source: &str, destination: &str) -> Self {
        let op = CopyOp::new(from, vec![source.to_owned()], destination);
        self.step(Op::Copy(op), &format!("COPY {source} {destination}"))
    }

    /// Copies one path out of another stage.
    pub(crate) fn copy_from(mut self, producer: Lease, source: &str, destination: &str) -> Self {
        let position = u32::try_from(self.job.stage_ids.len()).unwrap() + 1;
        self.job.stage_ids.push((StageIndex(position), producer.stage));
        let selector = selector(source);
        let from = CopyFrom::Stage { stage: StageIndex(position), selector };
        self.copy(from, source, destination)
    }

    /// Others copy this path.
    pub(crate) fn slice(mut self, path: &str) -> Self {
        self.job.make_slices.push(selector(path));
        self
    }

    pub(crate) fn assignment(self) -> Assignment {
        Assignment {
            lease: self.lease,
            build: BuildId(uuid::Uuid::now_v7()),
            project: "default".parse().unwrap(),
            label: "stage-0".into(),
            dockerfile: "Dockerfile".into(),
            job: Job::Stage(Box::new(self.job)),
        }
    }

    /// Makes it ready.
    pub(crate) fn submit(self, coordinator: &Coordinator) -> Lease {
        let lease = self.lease;
        let assignment = self.assignment();
        coordinator.change(|state| state.ready.push_back(assignment));
        lease
    }
}

pub(crate) fn selector(path: &str) -> SliceSelector {
    SliceSelector::new(vec![path.to_owned()])
}
