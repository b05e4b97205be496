//! Why a copy failed.

use std::io;

use common::{Failure, FailureClass};

use crate::runtime::UnknownUser;

/// Why a copy failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A source without wildcards that is not there.
    #[error("{path:?} not found in the {from}")]
    MissingSource {
        /// The source, as written.
        path: String,
        /// `build context`, `stage` or `image`.
        from: &'static str,
    },
    /// The destination or a part of it is no directory where one is needed.
    #[error("cannot copy to {path:?}: {problem}")]
    Destination {
        /// The path in the root file system.
        path: String,
        /// What is in the way.
        problem: &'static str,
    },
    /// `--chown` names nobody.
    #[error(transparent)]
    Owner(#[from] UnknownUser),
    /// `--chown` with names where there is no passwd file to look in.
    #[error("--chown={0} with --link: names cannot be looked up, as the layer stands alone")]
    NamedOwner(String),
    /// `--chmod` that cannot be read.
    #[error("invalid mode {0:?}")]
    Mode(String),
    /// `--exclude` that cannot be read.
    #[error("invalid --exclude: {0}")]
    Exclude(String),
    /// An archive that ADD cannot unpack.
    #[error("cannot unpack {path:?}: {problem}")]
    Archive {
        /// The source.
        path: String,
        /// Why.
        problem: String,
    },
    /// The disk of the worker is full.
    #[error("no space left on the worker's disk")]
    DiskFull,
    /// Anything else the kernel said.
    #[error("could not copy {path:?}: {source}")]
    Io {
        /// The path at fault.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl CopyError {
    /// An error of the kernel about `path`.
    pub(super) fn io(path: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        if crate::transfer::is_full(&source) {
            return Self::DiskFull;
        }
        Self::Io { path: path.into(), source }
    }

    /// The failure to show; file and lines are the caller's to add.
    pub fn failure(&self) -> Failure {
        let user = |code| Failure::new(FailureClass::User, code, self.to_string());
        match self {
            Self::MissingSource { from: "build context", .. } => user("missing-source").with_hint(
                "check the path, which is relative to the context, and that .dockerignore does not exclude it",
            ),
            Self::MissingSource { .. } => user("missing-source")
                .with_hint("check the path; --from reads the final file system of the stage or image, from /"),
            Self::Destination { .. } => user("copy-destination"),
            Self::Owner(_) => user("unknown-user")
                .with_hint("use numbers, or create the user in an earlier instruction"),
            Self::NamedOwner(_) => user("unknown-user").with_hint("use numbers, or leave --link out"),
            Self::Mode(_) => user("bad-flag-value"),
            Self::Exclude(_) => user("bad-exclude"),
            Self::Archive { .. } => user("bad-archive")
                .with_hint("use COPY to copy an archive without unpacking it"),
            Self::DiskFull => {
                Failure::new(FailureClass::Infrastructure, crate::transfer::DISK_FULL, self.to_string())
            }
            Self::Io { source, .. } if is_of_the_paths(source) => user("copy-failed"),
            Self::Io { .. } => {
                Failure::new(FailureClass::Infrastructure, "copy-failed", self.to_string())
            }
        }
    }
}

/// Whether no other worker could do it either: links in a circle, a name that is too long.
fn is_of_the_paths(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [rustix::io::Errno::LOOP, rustix::io::Errno::NAMETOOLONG]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}
