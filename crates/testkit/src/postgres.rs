//! Postgres.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;

use crate::process::{Service, wait_for};

/// A private server on a socket.
#[derive(Debug)]
pub struct Postgres {
    _service: Service,
    socket: PathBuf,
}

impl Postgres {
    /// Makes and starts a server below `directory`, which others must be able to enter.
    pub fn start(directory: &Path) -> anyhow::Result<Self> {
        let binaries = binaries().context("postgres is not installed (Debian: postgresql)")?;
        let root = directory.join("postgres");
        std::fs::create_dir_all(&root)?;
        // Postgres refuses to run as root.
        let user: &[&str] = if rustix::process::geteuid().is_root() {
            let status = Command::new("chown").arg("postgres").arg(&root).status()?;
            anyhow::ensure!(status.success(), "there is no user postgres");
            &["--reuid=postgres", "--regid=postgres", "--init-groups"]
        } else {
            &[]
        };
        let data = root.join("data");
        let made = Command::new("setpriv")
            .args(user)
            .arg(binaries.join("initdb"))
            .args(["-U", "slipway", "-A", "trust", "--no-sync", "--wal-segsize=1"])
            .args(["-E", "UTF8", "--locale=C.UTF-8", "-D"])
            .arg(&data)
            .current_dir("/")
            .output()?;
        anyhow::ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut command = Command::new("setpriv");
        command.args(user).args(["--pdeathsig", "KILL", "--"]).arg(binaries.join("postgres"));
        command.arg("-D").arg(&data).args(["-c", "listen_addresses=", "-c"]);
        command.arg(format!("unix_socket_directories={}", root.display()));
        command.args(["-c", "fsync=off", "-c", "full_page_writes=off"]).current_dir("/");
        let service = Service::start("postgres", &command, directory)?.stopped_by(Signal::INT);
        let server = Self { _service: service, socket: root };
        wait_for("postgres", Duration::from_secs(30), || server.sql("select 1").ok())?;
        Ok(server)
    }

    /// Makes a database and gives its address.
    pub fn database(&self, name: &str) -> anyhow::Result<String> {
        self.sql(&format!("create database {name}"))?;
        let host: String = self.socket.display().to_string().replace('/', "%2F");
        Ok(format!("postgres://slipway@{host}/{name}"))
    }

    fn sql(&self, text: &str) -> anyhow::Result<()> {
        let output = Command::new("psql")
            .args(["-q", "-U", "slipway", "-d", "postgres", "-h"])
            .arg(&self.socket)
            .args(["-c", text])
            .output()?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// The directory with the newest server's programs.
fn binaries() -> Option<PathBuf> {
    if let Some(directory) = std::env::var_os("SLIPWAY_PG_BINDIR") {
        return Some(PathBuf::from(directory));
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> = versions
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|directory| directory.join("initdb").is_file())
        .collect();
    found.sort();
    found.pop()
}
