//! The worker's own process tree.
//!
//! A worker that is killed must not leave containers, mounts or helpers behind. So the program
//! that is started only supervises: it starts itself again as the first process of a new pid
//! namespace with its own mount namespace. When the supervisor dies, however it dies, the kernel
//! kills that first process, and with it everything in the namespace; its mounts vanish with the
//! mount namespace.
//!
//! The first process only reaps and passes signals on to the worker proper, its only own child.
#![expect(unsafe_code, reason = "unshare and prctl have no safe form in the standard library")]

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode};
use std::sync::mpsc::Sender;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::process::{
    Pid, Signal, WaitOptions, kill_process, set_parent_process_death_signal, wait,
};
use rustix::thread::UnshareFlags;

/// The role of this process, from the environment variable [`ROLE_VARIABLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Started by an operator.
    Supervisor,
    /// First process of the namespace.
    Init,
    /// The worker proper.
    Worker,
}

/// Names the role to the processes that the supervisor starts.
pub const ROLE_VARIABLE: &str = "SLIPWAY__ROLE";

impl Role {
    /// This process's role.
    pub fn current() -> Self {
        match std::env::var(ROLE_VARIABLE).as_deref() {
            Ok("init") => Self::Init,
            Ok("worker") => Self::Worker,
            _ => Self::Supervisor,
        }
    }
}

/// Starts this program again with the same arguments as the first process of new namespaces, and
/// waits for it. Call it before any thread is started.
///
/// Fails where namespaces are not allowed: the caller then goes on as the worker itself.
pub fn supervise() -> io::Result<ExitCode> {
    // A process whose children live in another pid namespace can start no thread any more.
    let signals = pass_signals();
    // SAFETY: the only other thread waits for signals and touches neither files nor mounts, so
    // nothing loses a shared view. The descriptor table stays shared as it is.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWPID)? };
    // Mounts of the host still arrive; ours never leave.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    // crun refuses hosts whose v2 tree lies beside v1 controllers; nobody here needs that tree.
    let unified = "/sys/fs/cgroup/unified";
    if std::path::Path::new(unified).is_dir() && unmount(unified, UnmountFlags::DETACH).is_err() {
        // In a user namespace mounts of the host cannot be removed, only covered.
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let _ = mount("none", unified, "tmpfs", flags, None);
    }
    let child = start_as("init")?;
    Ok(pass_on_until_end(child, &signals))
}

/// The first process: makes `/proc` show the new namespace, starts the worker, reaps.
pub fn init() -> io::Result<ExitCode> {
    mount(
        "proc",
        "/proc",
        "proc",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        None,
    )?;
    let signals = pass_signals();
    let child = start_as("worker")?;
    Ok(pass_on_until_end(child, &signals))
}

fn start_as(role: &str) -> io::Result<Pid> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(ROLE_VARIABLE, role);
    // SAFETY: only async-signal-safe system calls between fork and exec.
    unsafe {
        command.pre_exec(|| {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(())
        });
    }
    // Waited for in `pass_on_until_end`, together with every orphan.
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::other("a child without pid"))
}

/// Passes SIGTERM and SIGINT on to `child`, reaps everything, and ends as `child` ends.
fn pass_on_until_end(child: Pid, signals: &Sender<Pid>) -> ExitCode {
    // Without the thread signals are not passed on; that was said.
    let _ = signals.send(child);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == child => {
                let status = std::process::ExitStatus::from_raw(status.as_raw());
                let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(9));
                return ExitCode::from(u8::try_from(code).unwrap_or(1));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return ExitCode::FAILURE,
        }
    }
}

/// Starts a thread that waits for signals, so that no code runs inside a signal handler, and passes
/// them on to the process that the channel names.
fn pass_signals() -> Sender<Pid> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let started = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async move {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut terminate), Ok(mut interrupt)) =
                (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
            else {
                return;
            };
            // The child is there a moment later; signals that come before it are kept.
            let Ok(child) = receiver.recv() else { return };
            loop {
                let signal = tokio::select! {
                    _ = terminate.recv() => Signal::TERM,
                    _ = interrupt.recv() => Signal::INT,
                };
                let _ = kill_process(child, signal);
            }
        });
    });
    if let Err(error) = started {
        tracing::warn!(%error, "signals are not passed on");
    }
    sender
}
