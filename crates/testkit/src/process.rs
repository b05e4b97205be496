//! Programs and ports.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use standalone::{Durability, Postgres, Registry};

/// Starts a private Postgres below `directory`.
pub fn postgres(directory: &Path, durability: Durability) -> anyhow::Result<Postgres> {
    Ok(Postgres::start(directory, durability)?)
}

/// Starts a private registry below `directory`.
pub fn registry(directory: &Path) -> anyhow::Result<Registry> {
    // Another process may take the port in between: then the next one is tried.
    let mut last = None;
    for _ in 0..5 {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        match Registry::start(directory, address) {
            Ok(registry) => return Ok(registry),
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("no registry was started")?.into())
}

/// A port that was free a moment ago.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// One of this workspace's programs. They lie beside the directory of the running test or program.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own
        .ancestors()
        .skip(1)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file());
    found.with_context(|| format!("{name} is not built: run cargo build --workspace first"))
}
