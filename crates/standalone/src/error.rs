//! Why a server does not run.

use std::path::PathBuf;
use std::time::Duration;

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Its program is not there.
    #[error("{name} is not installed: apt-get install {package}")]
    NotInstalled {
        /// The server.
        name: &'static str,
        /// Debian's package.
        package: &'static str,
    },
    /// The process could not be made, or signalled.
    #[error("cannot run {name}: {source}")]
    Process {
        /// The server.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// One of its files.
    #[error("cannot use {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its directory cannot hold a socket.
    #[error("the directory {path} is too deep: a socket's path has at most 107 bytes")]
    TooDeep {
        /// The directory.
        path: PathBuf,
    },
    /// A program that prepares it failed.
    #[error("{program} failed: {message}")]
    Preparation {
        /// The program.
        program: &'static str,
        /// What it said.
        message: String,
    },
    /// It does not answer.
    #[error("gave up waiting for {what} after {} s", limit.as_secs())]
    NotReady {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
    },
}

impl ServiceError {
    pub(crate) fn file(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::File { path: path.into(), source }
    }
}
