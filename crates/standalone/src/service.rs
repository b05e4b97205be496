//! Child processes that never outlive their owner.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::ServiceError;

/// How long a service may take to end after it was asked to.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A running service.
#[derive(Debug)]
pub struct Service {
    name: String,
    child: Child,
    command: Command,
    log: PathBuf,
    stop_signal: Signal,
}

impl Service {
    /// Starts a program with its output added to `directory/name.log`.
    ///
    /// It has a process group of its own: a Ctrl-C at the terminal reaches the owner, who stops its
    /// services in an order that makes sense.
    pub fn start(name: &str, command: &Command, directory: &Path) -> Result<Self, ServiceError> {
        let log = directory.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|error| ServiceError::file(&log, error))?;
        let mut wrapped = Command::new("setpriv");
        wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program());
        wrapped.args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            wrapped.current_dir(directory);
        }
        let fail = |source| ServiceError::Process { name: name.to_owned(), source };
        let child = wrapped
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(fail)?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .map_err(fail)?;
        let (name, stop_signal) = (name.to_owned(), Signal::TERM);
        Ok(Self { name, child, command: wrapped, log, stop_signal })
    }

    /// Starts it again after it has ended.
    pub fn restart(&mut self) -> Result<(), ServiceError> {
        let fail = |source| ServiceError::Process { name: self.name.clone(), source };
        // Whatever is left of the last run.
        let _ = self.child.kill();
        self.child.wait().map_err(fail)?;
        self.child = self.command.spawn().map_err(fail)?;
        Ok(())
    }

    /// Stops with another signal than SIGTERM.
    #[must_use]
    pub fn stopped_by(mut self, signal: Signal) -> Self {
        self.stop_signal = signal;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<(), ServiceError> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let fail = |source| ServiceError::Process { name: self.name.clone(), source };
        let pid = pid.ok_or_else(|| fail(io::Error::other("it has no process id")))?;
        kill_process(pid, signal).map_err(|errno| fail(errno.into()))
    }

    /// Sends a signal to it and to all that it has started, whatever groups they are in.
    pub fn signal_tree(&self, signal: Signal) -> Result<(), ServiceError> {
        let mut waiting = children(self.child.id());
        while let Some(child) = waiting.pop() {
            waiting.extend(children(u32::try_from(child.as_raw_nonzero().get()).unwrap_or(0)));
            // It may have ended meanwhile.
            let _ = kill_process(child, signal);
        }
        self.signal(signal)
    }

    /// Kills it without warning.
    pub fn kill(&mut self) -> Result<(), ServiceError> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed
            .map(|_| ())
            .map_err(|source| ServiceError::Process { name: self.name.clone(), source })
    }

    /// Asks it to stop and waits; one that does not is killed.
    pub fn stop(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let _ = self.signal(self.stop_signal);
        let start = Instant::now();
        while start.elapsed() < STOP_LIMIT {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill()?;
        self.child.wait()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let stopped = self.stop();
        debug_assert!(
            stopped.is_ok() || std::thread::panicking(),
            "{} cannot be stopped",
            self.name
        );
    }
}

/// The processes that a process has started.
fn children(parent: u32) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let child = |entry: std::fs::DirEntry| {
        let id: i32 = entry.file_name().to_str()?.parse().ok()?;
        let text = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // Behind the name, which may hold anything: state, parent.
        let mut words = text.rsplit_once(')')?.1.split_whitespace().skip(1);
        let is_child = words.next()?.parse() == Ok(parent);
        is_child.then(|| Pid::from_raw(id)).flatten()
    };
    entries.filter_map(child).collect()
}

/// Waits until `condition` gives something, at most `limit`.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T, ServiceError> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if start.elapsed() >= limit {
            return Err(ServiceError::NotReady { what: what.to_owned(), limit });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
