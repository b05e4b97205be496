//! One command in one container.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::public::v1::LogStream;
use common::plan::{Network, RunOp, Security};
use common::resources::Resources;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::cgroup::Cgroup;
use super::disk::{DiskExcess, DiskWatch};
use super::mounts::{ContainerMount, MountSource, in_order};
use super::network::{DNS_SERVER, NetworkLease};
use super::probe::Runtime;
use super::spec::{self, HOSTNAME, NetworkNamespace, Surroundings};
use super::stubs::{StubKind, Stubs, write_bound_file};
use super::users::{self, Identity, UnknownUser};

/// How long a runtime may take to end a container that was killed.
const KILL_GRACE: Duration = Duration::from_secs(10);

/// Bytes that are read from a command at once.
const OUTPUT_CHUNK_BYTES: usize = 16 * 1024;

/// What to run.
#[derive(Debug)]
pub struct RunRequest {
    /// A name that no other container of this host has: `[a-z0-9-]`.
    pub id: String,
    /// The mounted, writable root file system.
    pub rootfs: PathBuf,
    /// An empty directory for the runtime's files.
    pub bundle: PathBuf,
    /// The command; its own `mounts` are prepared by the caller, in `mounts`.
    pub op: RunOp,
    /// What is mounted.
    pub mounts: Vec<ContainerMount>,
    /// Variables that only this process sees: secrets.
    pub secret_env: Vec<(String, String)>,
    /// Limits; what is absent comes from the configuration.
    pub limits: Resources,
    /// Where on the worker's disk the command's changes go to: these count against its share.
    pub written: Vec<PathBuf>,
}

/// Some bytes that the command wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputChunk {
    /// Where to.
    pub stream: LogStream,
    /// The bytes, cut anywhere.
    pub bytes: Vec<u8>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunExit {
    /// Exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// It reached its memory limit and something was killed; it may have gone on all the same.
    pub oom: bool,
    /// It was ended because its time was over.
    pub timed_out: bool,
    /// It was ended because it wrote nothing for too long.
    pub silent: bool,
    /// It was ended because of the disk.
    pub disk: Option<DiskExcess>,
    /// It was ended because somebody asked.
    pub cancelled: bool,
    /// The most memory it had at once, in bytes, where the kernel tells.
    pub peak_memory_bytes: Option<u64>,
}

/// A command could not be run at all.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// `USER` names nobody.
    #[error(transparent)]
    User(#[from] UnknownUser),
    /// `--network=host` where it is not allowed.
    #[error("network mode \"host\" is not allowed on this worker")]
    HostNetwork,
    /// `--security=insecure` where it is not allowed.
    #[error("security.insecure is not allowed on this worker")]
    Insecure,
    /// A file or directory could not be prepared.
    #[error("could not prepare the container")]
    Prepare(#[source] io::Error),
    /// The runtime could not be started.
    #[error("could not start {runtime}")]
    Start {
        /// The runtime's name.
        runtime: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The runtime failed before the command began.
    #[error("{runtime} failed: {message}")]
    Runtime {
        /// The runtime's name.
        runtime: &'static str,
        /// Its own words.
        message: String,
    },
}

/// What a container needs besides its process; taken back in `finish`.
struct Prepared {
    stubs: Stubs,
    cgroup: Option<Cgroup>,
    log: PathBuf,
    disk: DiskWatch,
    _network: Option<NetworkLease>,
}

enum Ended {
    Itself(std::process::ExitStatus),
    TimedOut,
    Silent,
    Disk(DiskExcess),
    Cancelled,
}

impl Runtime {
    /// Runs a command to its end, or ends it when `cancel` fires or its time is over: then every
    /// process of the container is killed.
    ///
    /// `output` is bounded by its receiver: a command whose output nobody takes waits.
    pub async fn run(
        &self,
        request: RunRequest,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<RunExit, RunError> {
        let runtime = self.clone();
        let (request, prepared) = tokio::task::spawn_blocking(move || {
            let prepared = runtime.prepare(&request)?;
            Ok::<_, RunError>((request, prepared))
        })
        .await
        .map_err(|error| RunError::Prepare(io::Error::other(error)))??;

        let ended = self.run_prepared(&request, &prepared, output, cancel).await;
        let runtime = self.clone();
        let id = request.id.clone();
        tokio::task::spawn_blocking(move || {
            // After a kill the runtime may have left its state; a container that is gone is fine.
            if !matches!(ended, Ok(Ended::Itself(_))) {
                runtime.delete(&id);
            }
            runtime.finish(prepared, ended)
        })
        .await
        .map_err(|error| RunError::Prepare(io::Error::other(error)))?
    }

    fn prepare(&self, request: &RunRequest) -> Result<Prepared, RunError> {
        if request.op.security == Security::Insecure && !self.config.allow_insecure {
            return Err(RunError::Insecure);
        }
        let identity = users::resolve(&request.rootfs, &request.op.user)?;
        let (namespace, lease) = self.namespace(request.op.network)?;
        let prepare = RunError::Prepare;
        let mut mounts = Self::bound_files(request, lease.is_some()).map_err(prepare)?;
        mounts.extend(request.mounts.iter().cloned());
        let mounts = in_order(&mounts);
        let targets: Vec<(&str, StubKind)> =
            mounts.iter().map(|mount| (mount.target.as_str(), mount.stub())).collect();
        fs::create_dir_all(&self.state).map_err(prepare)?;
        let memory = request.limits.memory_bytes.unwrap_or(self.config.memory_bytes);
        let cgroup = match &self.cgroups {
            Some(parent) => Some(Cgroup::make(parent, &request.id, memory).map_err(prepare)?),
            None => None,
        };
        // These stay in the layer, as BuildKit leaves them; the others are removed after the command.
        let kept = ["/proc", "/sys", "/dev"].map(|target| (target, StubKind::Directory));
        Stubs::make(&request.rootfs, &kept).map_err(prepare)?;
        let stubs = Stubs::make(&request.rootfs, &targets).map_err(prepare)?;
        make_working_dir(request, &identity)?;
        let cgroup_path = cgroup.as_ref().map(Cgroup::container_path);
        let around = Surroundings {
            rootfs: &request.rootfs,
            identity: &identity,
            mounts: &mounts,
            secret_env: &request.secret_env,
            cgroup_path: cgroup_path.as_deref(),
            network: namespace,
            pids: request.limits.pids.unwrap_or(self.config.pids),
            cpu_millis: request
                .limits
                .cpu_millis
                .or(Some(self.config.cpu_millis).filter(|millis| *millis > 0)),
            seccomp: self.seccomp.as_deref(),
        };
        let config = spec::config(&request.op, &around);
        fs::write(request.bundle.join("config.json"), config.to_string()).map_err(prepare)?;
        let log = request.bundle.join("runtime.log");
        let disk =
            DiskWatch::new(&request.written, self.config.disk_bytes, self.config.min_free_bytes);
        Ok(Prepared { stubs, cgroup, log, disk, _network: lease })
    }

    fn namespace(
        &self,
        network: Network,
    ) -> Result<(NetworkNamespace, Option<NetworkLease>), RunError> {
        match (network, &self.network) {
            (Network::Host, _) if self.config.allow_host_network => {
                Ok((NetworkNamespace::Host, None))
            }
            (Network::Host, _) => Err(RunError::HostNetwork),
            (Network::Default, Some(pool)) => {
                let lease = pool.take().map_err(RunError::Prepare)?;
                Ok((NetworkNamespace::Join(lease.path().to_owned()), Some(lease)))
            }
            (Network::None, _) | (Network::Default, None) => Ok((NetworkNamespace::New, None)),
        }
    }

    /// Files that the command sees instead of the image's, and never in a layer.
    fn bound_files(request: &RunRequest, has_slirp: bool) -> io::Result<Vec<ContainerMount>> {
        let options = &request.op.options;
        let name = options.hostname.as_deref().unwrap_or(HOSTNAME);
        let mut hosts =
            format!("127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        for (name, address) in &options.hosts {
            hosts.push_str(&format!("{address}\t{name}\n"));
        }
        let resolver = match (request.op.network, has_slirp) {
            (Network::Host, _) => fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
            (_, true) => format!("nameserver {DNS_SERVER}\n"),
            (_, false) => String::new(),
        };
        let file = |path: PathBuf, target: &str| ContainerMount {
            target: target.to_owned(),
            source: MountSource::File { path, read_only: true },
        };
        let mut files = Vec::new();
        for (name, target, content, mode) in [
            ("hosts", "/etc/hosts", hosts.as_str(), 0o644),
            ("resolv.conf", "/etc/resolv.conf", resolver.as_str(), 0o644),
        ] {
            let source = request.bundle.join(name);
            write_bound_file(&source, content, mode)?;
            files.push(file(source, target));
        }
        if let Some(script) = &request.op.script {
            let source = request.bundle.join("script");
            write_bound_file(&source, &script.content, 0o755)?;
            files.push(file(source, &script.name));
        }
        Ok(files)
    }

    async fn run_prepared(
        &self,
        request: &RunRequest,
        prepared: &Prepared,
        output: mpsc::Sender<OutputChunk>,
        cancel: CancellationToken,
    ) -> Result<Ended, RunError> {
        let start = |source| RunError::Start { runtime: self.name(), source };
        let mut command = tokio::process::Command::from(self.command());
        command.arg("--log").arg(&prepared.log).arg("run").arg("--bundle").arg(&request.bundle);
        command.arg(&request.id).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(start)?;
        let pulse = Pulse::default();
        let forward =
            |pipe, stream| tokio::spawn(forward(pipe, stream, output.clone(), pulse.clone()));
        let readers = [
            child.stdout.take().map(|pipe| forward(Pipe::Out(pipe), LogStream::Stdout)),
            child.stderr.take().map(|pipe| forward(Pipe::Err(pipe), LogStream::Stderr)),
        ];
        drop(output);
        let timeout = request.limits.timeout_secs.unwrap_or(self.config.timeout_secs).max(1);
        let ended = tokio::select! {
            status = child.wait() => Ended::Itself(status.map_err(start)?),
            () = tokio::time::sleep(Duration::from_secs(timeout)) => Ended::TimedOut,
            () = pulse.lost(self.config.silence_secs) => Ended::Silent,
            excess = prepared.disk.exceeded() => Ended::Disk(excess),
            () = cancel.cancelled() => Ended::Cancelled,
        };
        if !matches!(ended, Ended::Itself(_)) {
            self.kill(&request.id).await;
            if tokio::time::timeout(KILL_GRACE, child.wait()).await.is_err() {
                tracing::error!(container = request.id, "a killed container does not end");
                child.kill().await.map_err(start)?;
            }
        }
        // The pipes end with the container's last process.
        for reader in readers.into_iter().flatten() {
            if tokio::time::timeout(KILL_GRACE, reader).await.is_err() {
                tracing::warn!(container = request.id, "output stays open after the end");
            }
        }
        Ok(ended)
    }

    /// Kills every process of a container: its first process is the init of its pid namespace.
    async fn kill(&self, id: &str) {
        let mut command = tokio::process::Command::from(self.command());
        command.args(["kill", id, "KILL"]).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        // The container may be just starting or just ending: try until the runtime has an answer.
        for _ in 0..20 {
            match command.status().await {
                Ok(status) if status.success() => return,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn delete(&self, id: &str) {
        let mut command = self.command();
        command.args(["delete", "--force", id]).stdin(Stdio::null());
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }

    fn finish(
        &self,
        prepared: Prepared,
        ended: Result<Ended, RunError>,
    ) -> Result<RunExit, RunError> {
        prepared.stubs.remove().map_err(RunError::Prepare)?;
        let ended = ended?;
        let peak_memory_bytes = prepared.cgroup.as_ref().and_then(Cgroup::peak_memory_bytes);
        let exit = RunExit { peak_memory_bytes, code: 137, ..RunExit::default() };
        match ended {
            Ended::TimedOut => Ok(RunExit { timed_out: true, ..exit }),
            Ended::Silent => Ok(RunExit { silent: true, ..exit }),
            Ended::Disk(excess) => Ok(RunExit { disk: Some(excess), ..exit }),
            Ended::Cancelled => Ok(RunExit { cancelled: true, ..exit }),
            Ended::Itself(status) => {
                use std::os::unix::process::ExitStatusExt;
                let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(9));
                if code != 0
                    && let Some(message) = runtime_error(&prepared.log)
                {
                    return self.explain(code, message, exit);
                }
                let oom = prepared.cgroup.as_ref().is_some_and(Cgroup::out_of_memory);
                Ok(RunExit { code, oom, ..exit })
            }
        }
    }

    /// The runtime itself wrote an error. A command that is missing or may not be executed is the
    /// Dockerfile's fault and has the shell's exit codes; all else is the host's, a file that is
    /// missing elsewhere included.
    fn explain(&self, code: i32, message: String, exit: RunExit) -> Result<RunExit, RunError> {
        let lower = message.to_ascii_lowercase();
        // crun: "open executable: …", "executable file … not found"; runc: `exec: "…": …`.
        if lower.contains("executable") || lower.contains("process: exec: ") {
            let missing = lower.contains("no such file") || lower.contains("not found");
            return Ok(RunExit { code: if missing { 127 } else { 126 }, ..exit });
        }
        tracing::warn!(code, message, "the container runtime failed");
        Err(RunError::Runtime { runtime: self.name(), message })
    }
}

/// A WORKDIR that only the base image's configuration names may be missing: it is made for the
/// user of the command, as BuildKit's executor does.
fn make_working_dir(request: &RunRequest, identity: &Identity) -> Result<(), RunError> {
    let op = common::plan::WorkdirOp {
        path: request.op.working_dir.clone(),
        owner: format!("{}:{}", identity.uid, identity.gid),
    };
    crate::execute::copy::make_workdir(&op, &request.rootfs)
        .map_err(|error| RunError::Prepare(io::Error::other(error)))
}

/// The last error in a runtime's log, of either of the formats that crun and runc write.
fn runtime_error(log: &std::path::Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    let line = text.lines().rev().find(|line| {
        line.contains("level=error") || line.contains("\"error\"") || !line.contains("level=")
    })?;
    let message = match line.split_once("msg=\"") {
        Some((_, rest)) => rest.strip_suffix('"').unwrap_or(rest),
        None => line,
    };
    let message: String = message.trim().chars().take(500).collect();
    Some(message).filter(|message| !message.is_empty())
}

enum Pipe {
    Out(tokio::process::ChildStdout),
    Err(tokio::process::ChildStderr),
}

/// When a command was last heard of.
#[derive(Debug, Clone)]
struct Pulse {
    started: Instant,
    /// Milliseconds after the start; [`Self::WAITING`] while nobody takes what it wrote.
    last: Arc<AtomicU64>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { started: Instant::now(), last: Arc::default() }
    }
}

impl Pulse {
    const WAITING: u64 = u64::MAX;

    fn beat(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(0);
        self.last.store(millis, Ordering::Relaxed);
    }

    fn wait(&self) {
        self.last.store(Self::WAITING, Ordering::Relaxed);
    }

    /// Waits until nothing came for so many seconds; with 0 forever.
    async fn lost(&self, secs: u64) {
        if secs == 0 {
            return std::future::pending().await;
        }
        let silence = Duration::from_secs(secs);
        loop {
            let last = self.last.load(Ordering::Relaxed);
            let now = self.started.elapsed();
            let last = if last == Self::WAITING { now } else { Duration::from_millis(last) };
            let rest = (last + silence).saturating_sub(now);
            if rest.is_zero() {
                return;
            }
            tokio::time::sleep(rest).await;
        }
    }
}

async fn forward(pipe: Pipe, stream: LogStream, output: mpsc::Sender<OutputChunk>, pulse: Pulse) {
    let mut pipe: Box<dyn AsyncRead + Send + Unpin> = match pipe {
        Pipe::Out(pipe) => Box::new(pipe),
        Pipe::Err(pipe) => Box::new(pipe),
    };
    let mut buffer = vec![0; OUTPUT_CHUNK_BYTES];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                let chunk = OutputChunk { stream, bytes: buffer[..count].to_vec() };
                pulse.wait();
                let sent = output.send(chunk).await;
                pulse.beat();
                if sent.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
