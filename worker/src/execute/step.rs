//! One step: mount, do, unmount.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use api::public::v1::{LogStream, TimingView};
use common::plan::{CopyOp, Op, RunOp, Step, WorkdirOp};
use common::resources::Resources;
use common::{Failure, FailureClass};
use tokio::sync::mpsc;

use super::copy::{CopyError, CopyInputs, copy, make_workdir};
use super::failure::JobError;
use super::sources::{self, Source};
use super::stage::{StageRun, millis, stands_alone};
use super::{mounts, remotes};
use crate::content::KnownTree;
use crate::rootfs::{Mount, mount_memory, mount_writable};
use crate::runtime::{DiskExcess, RunError, RunExit, RunRequest, RuntimeConfig};
use crate::transfer::DISK_FULL;

/// Where in the root file system the files of a copy are until they have their place: no file of an
/// image has this name.
const STAGING: &str = ".slipway-staging-5bd2f0a1c7e94d36";

/// Output chunks of a command that wait to be split into lines.
const OUTPUT_BUFFER: usize = 64;

/// Runs a step with its changes going to the new directory `upper`, below `directory`.
pub(super) async fn run_step(
    run: &mut StageRun<'_>,
    step: &Step,
    directory: &Path,
    upper: &Path,
    timing: &mut TimingView,
) -> Result<(), JobError> {
    // What it reads may have to come first: the root file system is mounted after that.
    make_upper(run, upper)?;
    let inputs = inputs(run, step, directory, upper, timing).await?;
    let start = Instant::now();
    let mount = mount_root(run, step, directory, upper)?;
    let root = mount.as_ref().map_or(upper, Mount::path).to_owned();
    let result = match &step.op {
        Op::Run(op) => run_command(run, step, op, &inputs.mounts, directory, upper, &root).await,
        Op::Copy(op) => copy_files(run, step, op, &inputs, upper, &root).await,
        Op::Workdir(op) => make_directory(op.clone(), root).await,
    };
    tokio::task::spawn_blocking(move || drop((mount, inputs))).await?;
    timing.run_millis += millis(start);
    result
}

/// What a step reads besides the root file system.
#[derive(Debug, Default)]
struct Inputs {
    source: Source,
    /// What was downloaded.
    remotes: Option<PathBuf>,
    mounts: mounts::Prepared,
}

async fn inputs(
    run: &mut StageRun<'_>,
    step: &Step,
    directory: &Path,
    upper: &Path,
    timing: &mut TimingView,
) -> Result<Inputs, JobError> {
    let mut inputs = Inputs::default();
    match &step.op {
        Op::Copy(op) => {
            let cancel = run.held.cancel.clone();
            let (mount, files) = (directory.join("source"), upper.join(STAGING));
            let at = sources::Place { mount: &mount, files: &files, may_link: true };
            inputs.source = tokio::select! {
                source = sources::prepare(run, &op.from, &op.sources, at, timing) => source?,
                () = cancel.cancelled() => return Err(JobError::Stopped),
            };
            if !op.remotes.is_empty() {
                let at = directory.join("remotes");
                tokio::select! {
                    done = remotes::download(run, (&op.remotes, step.number), &at, timing) => done?,
                    () = cancel.cancelled() => return Err(JobError::Stopped),
                }
                inputs.remotes = Some(at);
            }
        }
        Op::Run(op) => {
            inputs.mounts =
                mounts::prepare(run, (op, step.number), &directory.join("mounts"), timing).await?;
        }
        Op::Workdir(_) => {}
    }
    Ok(inputs)
}

/// Mounts the root file system. A layer that stands alone is made in an empty directory.
fn mount_root(
    run: &StageRun<'_>,
    step: &Step,
    directory: &Path,
    upper: &Path,
) -> Result<Option<Mount>, JobError> {
    let (work, at) = (directory.join("work"), directory.join("root"));
    for path in [&work, &at] {
        make_open_directory(path)?;
    }
    if stands_alone(step) {
        return Ok(None);
    }
    Ok(Some(mount_writable(&run.lowers, upper, &work, &at)?))
}

/// Makes the directory that takes the changes.
fn make_upper(run: &StageRun<'_>, upper: &Path) -> Result<(), JobError> {
    make_open_directory(upper)?;
    // The root directory itself is the upper's: it has to look like the one below.
    match run.lowers.last() {
        Some(lower) => copy_root_metadata(lower, upper),
        None => Ok(()),
    }
}

fn make_open_directory(path: &Path) -> Result<(), JobError> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir(path)?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}

fn copy_root_metadata(lower: &Path, upper: &Path) -> Result<(), JobError> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(lower)?;
    std::os::unix::fs::chown(upper, Some(found.uid()), Some(found.gid()))?;
    std::fs::set_permissions(upper, found.permissions())?;
    Ok(())
}

async fn run_command(
    run: &StageRun<'_>,
    step: &Step,
    op: &RunOp,
    mounts: &mounts::Prepared,
    directory: &Path,
    upper: &Path,
    root: &Path,
) -> Result<(), JobError> {
    let bundle = directory.join("bundle");
    std::fs::create_dir(&bundle)?;
    // The runtime's configuration holds the variables: secrets never reach a disk.
    let memory = if mounts.secret_env.is_empty() { None } else { Some(mount_memory(&bundle)?) };
    let request = RunRequest {
        id: format!("{}-{}-{}", run.held.lease.stage, run.held.lease.epoch, step.number),
        rootfs: root.to_owned(),
        bundle,
        op: op.clone(),
        mounts: mounts.mounts.clone(),
        secret_env: mounts.secret_env.clone(),
        limits: Resources::default(),
        // What a writable bind throws away again is on the disk meanwhile, too.
        written: vec![upper.to_owned(), directory.join("mounts")],
    };
    let (output, receiver) = mpsc::channel(OUTPUT_BUFFER);
    let (log, number) = (run.log.clone(), step.number);
    let limit = run.worker.runtime.config().log_bytes;
    let forwarding = tokio::spawn(async move { log.forward(number, receiver, limit).await });
    let exit = run.worker.runtime.run(request, output, run.held.cancel.clone()).await;
    forwarding.await?;
    drop(memory);
    if let Ok(RunExit { oom: true, peak_memory_bytes, .. }) = &exit {
        let peak = peak_memory_bytes.unwrap_or(0) >> 20;
        let text =
            format!("warning: a process was killed for want of memory ({peak} MiB were in use)");
        run.log.line(step.number, LogStream::System, text).await;
    }
    let failure = match exit {
        Ok(exit) if exit.cancelled => return Err(JobError::Stopped),
        Ok(exit) => exit_failure(op, exit, run.worker.runtime.config()),
        Err(error) => Some(run_failure(&error)),
    };
    let Some(failure) = failure else { return Ok(()) };
    // A command that finds the disk full says so in its own words, if at all.
    if run.worker.content.has_no_room() {
        let message = format!("{} (the worker's disk is full)", failure.message);
        return Err(Failure::new(FailureClass::Infrastructure, DISK_FULL, message).into());
    }
    Err(failure.into())
}

fn run_failure(error: &RunError) -> Failure {
    match error {
        RunError::User(_) => Failure::new(FailureClass::User, "unknown-user", error.to_string())
            .with_hint("USER names a user that the image's /etc/passwd lacks: create it first"),
        RunError::Insecure => Failure::new(FailureClass::User, "insecure", error.to_string())
            .with_hint("the operator allows it with runtime.allow_insecure"),
        RunError::HostNetwork => {
            Failure::new(FailureClass::User, "host-network", error.to_string())
                .with_hint("the operator allows it with runtime.allow_host_network")
        }
        _ => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            Failure::new(FailureClass::Infrastructure, "runtime-failed", text)
        }
    }
}

fn exit_failure(op: &RunOp, exit: RunExit, limits: &RuntimeConfig) -> Option<Failure> {
    let command: String = op.argv.join(" ").chars().take(300).collect();
    let resource = |code: &str, what: String, hint: &str| {
        let message = format!("process {command:?} {what}");
        Failure::new(FailureClass::Resource, code, message).with_hint(hint)
    };
    let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
    let mut failure = if let Some(excess) = exit.disk {
        match excess {
            DiskExcess::Limit { written } => {
                let limit = mebibytes(limits.disk_bytes);
                let what = format!("wrote {}, more than the {limit} it may", mebibytes(written));
                resource("disk-limit", what, "the limit is runtime.disk_bytes of the worker")
            }
            DiskExcess::Filled { written } => {
                let what = format!("wrote {} and filled the worker's disk", mebibytes(written));
                let hint = "it needs a worker with a bigger disk; runtime.min_free_bytes stay free";
                resource("disk-limit", what, hint)
            }
            DiskExcess::Full => {
                let message = format!("process {command:?} was ended: the worker's disk is full");
                Failure::new(FailureClass::Infrastructure, "disk-full", message)
            }
        }
    } else if exit.timed_out {
        let hint = "the limit is runtime.timeout_secs of the worker";
        resource("timeout", "took too long".to_owned(), hint)
    } else if exit.silent {
        let what = format!("wrote nothing for {} seconds", limits.silence_secs);
        resource("silence", what, "the limit is runtime.silence_secs of the worker")
    } else if exit.oom && exit.code != 0 {
        let what =
            format!("ran out of memory at {}", mebibytes(exit.peak_memory_bytes.unwrap_or(0)));
        resource("out-of-memory", what, "the limit is runtime.memory_bytes of the worker")
    } else if exit.code != 0 {
        let message =
            format!("process {command:?} did not complete successfully: exit code: {}", exit.code);
        let failure = Failure::new(FailureClass::User, "run-exit-code", message);
        match exit.code {
            127 => failure.with_hint("the command, or the shell that runs it, is not in the image"),
            126 => failure
                .with_hint("the command cannot be executed: check its permissions and format"),
            _ => failure,
        }
    } else {
        return None;
    };
    failure.exit_code = Some(exit.code);
    Some(failure)
}

async fn copy_files(
    run: &StageRun<'_>,
    step: &Step,
    op: &CopyOp,
    inputs: &Inputs,
    upper: &Path,
    root: &Path,
) -> Result<(), JobError> {
    let (copied_op, root) = (op.clone(), root.to_owned());
    let Source { keep_owner, manifest, .. } = &inputs.source;
    let (keep_owner, staged) = (*keep_owner, inputs.source.own_directory().is_some());
    let mounted = inputs.source.path().map(Path::to_owned);
    let remotes = inputs.remotes.clone();
    let copied = tokio::task::spawn_blocking(move || {
        // What was fetched lies inside the root file system, so that files need only be moved.
        let source = if staged { Some(root.join(STAGING)) } else { mounted };
        let inputs = CopyInputs {
            source: source.as_deref(),
            keep_owner,
            may_move: staged,
            remotes: remotes.as_deref(),
        };
        let copied = copy(&copied_op, inputs, &root);
        if staged {
            std::fs::remove_dir_all(root.join(STAGING))?;
        }
        Ok::<_, std::io::Error>(copied)
    })
    .await??;
    let stats = copied.map_err(|error: CopyError| error.failure())?;
    for warning in stats.warnings {
        run.log.line(step.number, LogStream::System, format!("warning: {warning}")).await;
    }
    if let Some(manifest) = manifest
        && op.chown.is_none()
        && op.chmod.is_none()
        && let Some(placed) = stats.moved
    {
        run.worker.content.remember_tree(KnownTree {
            project: run.project.clone(),
            manifest: Arc::clone(manifest),
            placed,
            layer: upper.to_owned(),
        });
    }
    Ok(())
}

async fn make_directory(op: WorkdirOp, root: PathBuf) -> Result<(), JobError> {
    let made = tokio::task::spawn_blocking(move || make_workdir(&op, &root)).await?;
    Ok(made.map_err(|error| error.failure())?)
}
