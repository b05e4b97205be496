//! Redis.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use standalone::{Service, wait_for};

/// A private server on a socket.
#[derive(Debug)]
pub struct Redis {
    service: Service,
    socket: PathBuf,
}

impl Redis {
    /// Starts a server below `directory`.
    pub fn start(directory: &Path) -> anyhow::Result<Self> {
        let socket = directory.join("redis.sock");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--unixsocket"]).arg(&socket);
        command.arg("--dir").arg(directory);
        let service = Service::start("redis", &command, directory)?;
        wait_for("redis", Duration::from_secs(20), || {
            std::os::unix::net::UnixStream::connect(&socket).ok()
        })?;
        Ok(Self { service, socket })
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket.display())
    }

    /// The process.
    pub fn service(&mut self) -> &mut Service {
        &mut self.service
    }

    /// Kills it.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.service.kill()?)
    }
}
