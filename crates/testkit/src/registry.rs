//! A registry.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process::{Service, free_port, wait_for};

/// A private registry on loopback, plain HTTP.
#[derive(Debug)]
pub struct Registry {
    _service: Service,
    host: String,
}

impl Registry {
    /// Starts a registry below `directory`.
    pub fn start(directory: &Path) -> anyhow::Result<Self> {
        let host = format!("127.0.0.1:{}", free_port()?);
        let data = directory.join("registry");
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"{host}\"}}\n",
            data.display()
        );
        let path = directory.join("registry.yml");
        std::fs::write(&path, config)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&path);
        let service = Service::start("registry", &command, directory)?;
        wait_for("the registry", Duration::from_secs(20), || {
            std::net::TcpStream::connect(&host).ok()
        })?;
        Ok(Self { _service: service, host })
    }

    /// Its address: `127.0.0.1:PORT`.
    pub fn host(&self) -> &str {
        &self.host
    }
}
