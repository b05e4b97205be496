//! A registry.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::ServiceError;
use crate::service::{Service, wait_for};

/// A registry over plain HTTP.
#[derive(Debug)]
pub struct Registry {
    service: Service,
    host: String,
}

impl Registry {
    /// Starts a registry at an address that is free, with its data below `directory`.
    pub fn start(directory: &Path, address: SocketAddr) -> Result<Self, ServiceError> {
        let program = program()
            .ok_or(ServiceError::NotInstalled { name: "a registry", package: "docker-registry" })?;
        let host = address.to_string();
        let data = directory.join("registry");
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: \"{}\"}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"{host}\"}}\n\
             # Manifests may name layers that are elsewhere.\n\
             validation: {{manifests: {{urls: {{allow: [\"^https?://\"]}}}}}}\n",
            data.display()
        );
        let path = directory.join("registry.yml");
        std::fs::write(&path, config).map_err(|error| ServiceError::file(&path, error))?;
        let mut command = Command::new(program);
        command.arg("serve").arg(&path);
        let mut service = Service::start("registry", &command, directory)?;
        let ready = wait_for("the registry", Duration::from_secs(20), || {
            let answers = std::net::TcpStream::connect(&host).is_ok();
            (answers || !service.is_running()).then_some(answers)
        })?;
        if ready && service.is_running() {
            return Ok(Self { service, host });
        }
        let message = service.log().lines().last().unwrap_or("it ended at once").to_owned();
        Err(ServiceError::Preparation { program: "docker-registry", message })
    }

    /// Its address: `127.0.0.1:PORT`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The process.
    pub fn service(&mut self) -> &mut Service {
        &mut self.service
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.service.is_running()
    }
}

/// Whether a registry could be started here.
pub fn registry_is_installed() -> bool {
    program().is_some()
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join("docker-registry"))
        .find(|candidate| candidate.is_file())
}
