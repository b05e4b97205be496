//! A stage without a farm: a base layer with busybox, steps on top of it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use api::public::v1::LogStream;
use common::plan::{CopyFrom, CopyOp, Network, RunOp};
use common::resources::Resources;
use layer::{Compression, PackedLayer, extract, pack_upper};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use worker::execute::copy::{CopyError, CopyInputs, CopyStats, copy};
use worker::rootfs::{Mount, mount_readonly, mount_writable};
use worker::runtime::{
    DefaultNetwork, OutputChunk, RunError, RunExit, RunRequest, Runtime, RuntimeConfig, RuntimeKind,
};

/// A chain of layers and a runtime.
pub(crate) struct Sandbox {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) runtime: Runtime,
    /// Lowest first.
    pub(crate) chain: Vec<PathBuf>,
    steps: usize,
}

/// One step under way: its root file system is mounted.
pub(crate) struct Step {
    pub(crate) mount: Mount,
    pub(crate) upper: PathBuf,
    number: usize,
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: RunExit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Both runtimes, each with only a loopback of its own.
pub(crate) fn every_runtime() -> [RuntimeConfig; 2] {
    [RuntimeKind::Crun, RuntimeKind::Runc].map(|kind| RuntimeConfig {
        kind,
        network: DefaultNetwork::Isolated,
        ..RuntimeConfig::default()
    })
}

impl Sandbox {
    pub(crate) fn new(config: &RuntimeConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("base");
        for name in ["bin", "etc", "tmp", "scratch", "dev", "proc", "sys"] {
            fs::create_dir_all(base.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
        let applets = "sh cat chmod cp dd echo env false find grep head hostname id ip ln ls mkdir mknod \
                       mount mv nproc ps rm seq setsid sleep stat timeout touch true umount wc";
        for name in applets.split_whitespace() {
            symlink("busybox", base.join("bin").join(name)).unwrap();
        }
        let users = "root:x:0:0::/root:\napp:x:7:8::/home/app:\n";
        fs::write(base.join("etc/passwd"), users).unwrap();
        fs::write(base.join("etc/group"), "root:x:0:\napp:x:8:\naudio:x:29:x,app\n").unwrap();
        let scratch = directory.path().join("scratch");
        fs::create_dir(&scratch).unwrap();
        let runtime = Runtime::probe(config, &scratch).unwrap();
        Self { directory, runtime, chain: vec![base], steps: 0 }
    }

    /// Without network, on the first runtime.
    pub(crate) fn plain() -> Self {
        Self::new(&every_runtime()[0])
    }

    /// The lowest layer, to add files to before the first step.
    pub(crate) fn base(&self, path: &str) -> PathBuf {
        self.chain[0].join(path)
    }

    /// Puts a program of the host into the lowest layer, with the libraries that it needs.
    pub(crate) fn add_program(&self, program: &str) {
        let output = std::process::Command::new("ldd").arg(program).output().unwrap();
        let listing = String::from_utf8(output.stdout).unwrap();
        let libraries = listing.split_whitespace().filter(|word| word.starts_with('/'));
        for path in libraries.chain([program]) {
            let target = self.base(path.trim_start_matches('/'));
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(path, target).unwrap();
        }
    }

    /// A new directory of this sandbox.
    pub(crate) fn fresh(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    pub(crate) fn step(&mut self) -> Step {
        self.steps += 1;
        let [upper, work, at] =
            ["upper", "work", "root"].map(|name| self.fresh(&format!("{name}-{}", self.steps)));
        let mount = mount_writable(&self.chain, &upper, &work, &at).unwrap();
        Step { mount, upper, number: self.steps }
    }

    /// Ends a step: its change becomes a blob, and the blob the next layer of the chain.
    pub(crate) fn commit(&mut self, step: Step) -> (PackedLayer, PathBuf) {
        let Step { mount, upper, number } = step;
        drop(mount);
        let blob = self.directory.path().join(format!("blob-{number}"));
        let packed = pack_upper(&upper, &self.chain, &blob, Compression::Gzip).unwrap();
        let unpacked = self.fresh(&format!("layer-{number}"));
        let extracted = extract(fs::File::open(&blob).unwrap(), &unpacked).unwrap();
        assert_eq!(extracted.diff_id, packed.diff_id);
        self.chain.push(unpacked);
        (packed, blob)
    }

    pub(crate) fn request(&mut self, step: &Step, argv: &[&str]) -> RunRequest {
        let id = format!("test-{}", uuid::Uuid::now_v7().simple());
        let bundle = self.fresh(&id);
        RunRequest {
            id,
            rootfs: step.mount.path().to_owned(),
            bundle,
            op: RunOp {
                network: Network::None,
                ..RunOp::new(argv.iter().map(|argument| (*argument).to_owned()).collect())
            },
            mounts: Vec::new(),
            secret_env: Vec::new(),
            limits: Resources::default(),
            written: vec![step.upper.clone()],
        }
    }

    /// Runs a shell command on top of the chain and throws its changes away.
    pub(crate) async fn sh(&mut self, script: &str) -> Ran {
        self.sh_with(script, |_| {}).await
    }

    /// The same, with a change to the request.
    pub(crate) async fn sh_with(
        &mut self,
        script: &str,
        change: impl FnOnce(&mut RunRequest),
    ) -> Ran {
        let step = self.step();
        let mut request = self.request(&step, &["/bin/sh", "-c", script]);
        change(&mut request);
        run(&self.runtime, request).await.unwrap()
    }

    /// Runs a shell command that has to succeed and commits its changes.
    pub(crate) async fn layer(&mut self, script: &str) -> (PackedLayer, PathBuf) {
        let step = self.step();
        let request = self.request(&step, &["/bin/sh", "-ec", script]);
        let ran = run(&self.runtime, request).await.unwrap();
        assert_eq!(ran.exit.code, 0, "{ran:?}");
        self.commit(step)
    }

    /// The chain as a file system, read-only.
    pub(crate) fn view(&mut self) -> Mount {
        self.steps += 1;
        let at = self.fresh(&format!("view-{}", self.steps));
        mount_readonly(&self.chain, &at).unwrap()
    }
}

/// Runs a command and takes all of its output.
pub(crate) async fn run(runtime: &Runtime, request: RunRequest) -> Result<Ran, RunError> {
    run_until(runtime, request, CancellationToken::new()).await
}

pub(crate) async fn run_until(
    runtime: &Runtime,
    request: RunRequest,
    cancel: CancellationToken,
) -> Result<Ran, RunError> {
    let (sender, mut receiver) = mpsc::channel::<OutputChunk>(4);
    let collect = tokio::spawn(async move {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(chunk) = receiver.recv().await {
            match chunk.stream {
                LogStream::Stdout => stdout.extend(chunk.bytes),
                LogStream::Stderr | LogStream::System => stderr.extend(chunk.bytes),
            }
        }
        [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    });
    let exit = runtime.run(request, sender, cancel).await?;
    let [stdout, stderr] = collect.await.unwrap();
    Ok(Ran { exit, stdout, stderr })
}

/// A COPY from the context.
pub(crate) fn copy_op(sources: &[&str], destination: &str) -> CopyOp {
    let sources = sources.iter().map(|source| (*source).to_owned()).collect();
    CopyOp::new(CopyFrom::Context, sources, destination)
}

/// Two directories: a context and a root file system.
pub(crate) struct Trees {
    pub(crate) directory: tempfile::TempDir,
}

impl Trees {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["source", "rootfs"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self { directory }
    }

    pub(crate) fn source(&self, path: &str) -> PathBuf {
        self.directory.path().join("source").join(path)
    }

    pub(crate) fn rootfs(&self, path: &str) -> PathBuf {
        self.directory.path().join("rootfs").join(path)
    }

    pub(crate) fn copy(&self, op: &CopyOp) -> Result<CopyStats, CopyError> {
        copy(op, inputs_of(&self.source(""), false), &self.rootfs(""))
    }
}

/// Writes a file and the directories above it.
pub(crate) fn write(path: impl AsRef<Path>, content: &str) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Every entry below `root`, one line each, sorted: path, type, mode, owner, content or target.
/// Times in whole seconds, as a layer has them.
pub(crate) fn tree(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            let kind = found.file_type();
            let what = if kind.is_dir() {
                todo.push(path.clone());
                "directory".to_owned()
            } else if kind.is_symlink() {
                format!("link to {}", fs::read_link(&path).unwrap().display())
            } else if kind.is_file() {
                let content = common::Digest::of(&fs::read(&path).unwrap()).short();
                format!("file {content} {} names", found.nlink())
            } else if kind.is_fifo() {
                "fifo".to_owned()
            } else {
                format!("special {:x}", found.rdev())
            };
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii();
            let (mode, uid, gid) = (found.mode() & 0o7777, found.uid(), found.gid());
            lines.push(format!("{name} {mode:o} {uid}:{gid} {} {what}", found.mtime()));
        }
    }
    lines.sort();
    lines
}

/// A copy that reads one directory.
pub(crate) fn inputs_of(source: &Path, keep_owner: bool) -> CopyInputs<'_> {
    CopyInputs { source: Some(source), keep_owner, ..CopyInputs::default() }
}
