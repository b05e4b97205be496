//! Postgres.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::ServiceError;
use crate::service::{Service, wait_for};

/// Room that the name of Postgres' socket needs in a path of at most 107 bytes.
const SOCKET_NAME_BYTES: usize = "/.s.PGSQL.5432".len();
/// Longest path of a socket on Linux: `sun_path` without its end.
const SOCKET_PATH_BYTES: usize = 107;

/// How long the processes of a server that was killed may take to end.
const LAST_ONE_LIMIT: Duration = Duration::from_secs(20);

/// Whether what was stored has to survive a crash of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It has to.
    Kept,
    /// It is thrown away anyhow: tests.
    Scratch,
}

/// A private server on a socket.
#[derive(Debug)]
pub struct Postgres {
    service: Service,
    socket: PathBuf,
}

impl Postgres {
    /// Starts a server with its data below `directory`, made where there is none. The directory
    /// must let others enter: as root the server runs as the user `postgres`.
    pub fn start(directory: &Path, durability: Durability) -> Result<Self, ServiceError> {
        let binaries = binaries()
            .ok_or(ServiceError::NotInstalled { name: "Postgres", package: "postgresql" })?;
        let root = directory.join("postgres");
        if root.as_os_str().len() + SOCKET_NAME_BYTES > SOCKET_PATH_BYTES {
            return Err(ServiceError::TooDeep { path: root });
        }
        std::fs::create_dir_all(&root).map_err(|error| ServiceError::file(&root, error))?;
        // Postgres refuses to run as root.
        let user: &[&str] = if rustix::process::geteuid().is_root() {
            run("chown", Command::new("chown").arg("postgres").arg(&root))?;
            &["--reuid=postgres", "--regid=postgres", "--init-groups"]
        } else {
            &[]
        };
        let data = root.join("data");
        // Written last: its absence tells of a directory that was not finished.
        if !data.join("slipway-made").exists() {
            make_data(&binaries, user, &data, durability)?;
        }
        let mut command = Command::new("setpriv");
        command.args(user).args(["--pdeathsig", "KILL", "--"]).arg(binaries.join("postgres"));
        command.arg("-D").arg(&data).args(["-c", "listen_addresses=", "-c"]);
        command.arg(format!("unix_socket_directories={}", root.display()));
        if durability == Durability::Scratch {
            command.args(["-c", "fsync=off", "-c", "full_page_writes=off"]);
        }
        command.current_dir("/");
        let service = Service::start("postgres", &command, directory)?.stopped_by(Signal::INT);
        let mut server = Self { service, socket: root };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Result<(), ServiceError> {
        let start = Instant::now();
        wait_for("Postgres", Duration::from_mins(1), || {
            if self.sql("select 1").is_ok() {
                return Some(Ok(()));
            }
            if self.service.is_running() {
                return None;
            }
            let log = self.service.log();
            let tail: Vec<&str> = log.lines().rev().take(5).collect();
            let message = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
            // The last server on these data was killed, and the rest of it still ends.
            let is_held = message.contains("postmaster.pid") || message.contains("shared memory");
            if is_held && start.elapsed() < LAST_ONE_LIMIT {
                std::thread::sleep(Duration::from_millis(100));
                return self.service.restart().err().map(Err);
            }
            Some(Err(ServiceError::Preparation { program: "postgres", message }))
        })?
    }

    /// Makes a database, if it is not there yet, and gives its address.
    pub fn database(&self, name: &str) -> Result<String, ServiceError> {
        if self.sql(&format!("create database {name}")).is_err() {
            let database = format!("select 1/count(*) from pg_database where datname = '{name}'");
            self.sql(&database)?;
        }
        let host = self.socket.display().to_string().replace('%', "%25").replace('/', "%2F");
        Ok(format!("postgres://slipway@{host}/{name}"))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.service.is_running()
    }

    /// Kills it without warning; its processes follow by themselves.
    pub fn kill(&mut self) -> Result<(), ServiceError> {
        self.service.kill()
    }

    /// Starts it again on the same data and waits until it answers.
    pub fn restart(&mut self) -> Result<(), ServiceError> {
        self.service.restart()?;
        self.wait_until_ready()
    }

    /// Sends a signal to the server and to each of its processes, which have groups of their own.
    pub fn signal(&self, signal: Signal) -> Result<(), ServiceError> {
        self.service.signal_tree(signal)
    }

    /// What a query gives: a line a row, columns between bars.
    pub fn query(&self, database: &str, text: &str) -> Result<String, ServiceError> {
        let failed = |message| ServiceError::Preparation { program: "psql", message };
        let mut command = Command::new("psql");
        command.args(["-q", "-A", "-t", "-U", "slipway", "-d", database, "-h"]).arg(&self.socket);
        let output = command.args(["-c", text]).output().map_err(|e| failed(e.to_string()))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn sql(&self, text: &str) -> Result<(), ServiceError> {
        let mut command = Command::new("psql");
        command.args(["-q", "-U", "slipway", "-d", "postgres", "-h"]).arg(&self.socket);
        run("psql", command.args(["-c", text]))
    }
}

/// Makes an empty data directory. One that was begun and not finished is thrown away.
fn make_data(
    binaries: &Path,
    user: &[&str],
    data: &Path,
    durability: Durability,
) -> Result<(), ServiceError> {
    if data.exists() {
        std::fs::remove_dir_all(data).map_err(|error| ServiceError::file(data, error))?;
    }
    let mut command = Command::new("setpriv");
    command.args(user).arg(binaries.join("initdb"));
    command.args(["-U", "slipway", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]);
    if durability == Durability::Scratch {
        command.args(["--no-sync", "--wal-segsize=1"]);
    }
    // Only the owner of the directory may enter it, so `trust` trusts nobody else.
    run("initdb", command.arg("-D").arg(data).current_dir("/"))?;
    let marker = data.join("slipway-made");
    std::fs::write(&marker, "").map_err(|error| ServiceError::file(marker, error))
}

fn run(program: &'static str, command: &mut Command) -> Result<(), ServiceError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| ServiceError::Process { name: program.to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ServiceError::Preparation { program, message })
}

/// The directory with the newest server's programs.
fn binaries() -> Option<PathBuf> {
    if let Some(directory) = std::env::var_os("SLIPWAY_PG_BINDIR") {
        return Some(PathBuf::from(directory));
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let number = |path: &Path| {
        let name = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        name.and_then(|name| name.parse::<u32>().ok()).unwrap_or(0)
    };
    versions
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|directory| directory.join("initdb").is_file())
        .max_by_key(|directory| number(directory))
}
