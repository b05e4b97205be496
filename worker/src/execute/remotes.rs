//! What ADD fetches from elsewhere.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use ::agent::AgentSocket;
use api::public::v1::TimingView;
use common::plan::{DEFAULT_AGENT, Remote};
use common::{Digest, Failure, FailureClass, Trust};
use fetch::{Checkout, Credentials, Fetcher, Ssh};

use super::agent;
use super::failure::JobError;
use super::stage::{StageRun, millis};

/// Fetches into the new directory `at`: files as `0/<name>`, `1/<name>`, repositories as `2/`.
pub(super) async fn download(
    run: &StageRun<'_>,
    (remotes, step): (&[Remote], u32),
    at: &Path,
    timing: &mut TimingView,
) -> Result<(), JobError> {
    let start = Instant::now();
    let wants_agent = remotes.iter().any(Remote::wants_agent);
    let agent = wants_agent.then(|| Agent::start(run, step)).transpose()?;
    let secrets = run.job.secrets.iter();
    let known = secrets.filter_map(|(name, secret)| Some((name.clone(), secret.value()?)));
    let fetcher = &run.worker.fetcher;
    let fetcher = match run.job.trust {
        Trust::Trusted => fetcher.clone(),
        Trust::Untrusted => fetcher.public_only().map_err(|error| error.failure())?,
    };
    let fetcher = fetcher.with_credentials(Credentials::from_secrets(known));
    for (number, remote) in remotes.iter().enumerate() {
        let directory = at.join(number.to_string());
        std::fs::create_dir_all(&directory)?;
        match remote {
            Remote::Http { url, name, checksum } => {
                file(&fetcher, url, checksum.as_ref(), &directory.join(name)).await?;
            }
            Remote::Git { url, reference, commit, keep_git_dir, submodules, .. } => {
                let what = Checkout {
                    url,
                    reference: reference.as_deref(),
                    commit,
                    keep_git_dir: *keep_git_dir,
                    submodules: *submodules,
                    ssh: agent.as_ref().filter(|_| remote.wants_agent()).map(Agent::ssh),
                };
                let done = fetcher.check_out(what, &directory).await;
                done.map_err(|error| error.failure())?;
            }
        }
    }
    timing.fetch_millis += millis(start);
    Ok(())
}

/// What git over ssh uses: the client's default agent. Every fetch has its own list of known hosts.
struct Agent {
    socket: AgentSocket,
    known_hosts: PathBuf,
    _scratch: tempfile::TempDir,
}

impl Agent {
    fn start(run: &StageRun<'_>, step: u32) -> Result<Self, JobError> {
        if !run.job.agents.iter().any(|name| name == DEFAULT_AGENT) {
            let message = "repositories over ssh need an SSH agent, and none was given";
            return Err(Failure::new(FailureClass::User, "agent-missing", message)
                .with_hint("give yours with --ssh default")
                .into());
        }
        let scratch = run.worker.content.scratch()?;
        let socket = agent::listen(run, DEFAULT_AGENT, step, &scratch.path().join("agent"))?;
        if !socket.is_reachable() {
            let message = "the path of the worker's data directory is too long for ssh";
            let failure = Failure::new(FailureClass::Infrastructure, "agent-unreachable", message);
            return Err(failure.into());
        }
        let known_hosts = scratch.path().join("hosts");
        Ok(Self { socket, known_hosts, _scratch: scratch })
    }

    fn ssh(&self) -> Ssh<'_> {
        Ssh { agent: self.socket.path(), known_hosts: &self.known_hosts }
    }
}

/// A file is its owner's alone and as old as the server says, as in BuildKit.
async fn file(
    fetcher: &Fetcher,
    url: &str,
    checksum: Option<&Digest>,
    path: &Path,
) -> Result<(), JobError> {
    use std::os::unix::fs::PermissionsExt as _;
    let made = fetcher.download(url, path).await;
    let made = made.map_err(|error| error.failure())?;
    if let Some(expected) = checksum.filter(|expected| **expected != made.digest) {
        let message = format!("digest mismatch {}: {expected}", made.digest);
        let failure = Failure::new(FailureClass::User, "checksum-mismatch", message)
            .with_hint("the file behind the URL is another one than --checksum says");
        return Err(failure.into());
    }
    let file = std::fs::File::options().write(true).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    let age = made.modified.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
    file.set_modified(UNIX_EPOCH + Duration::from_secs(age))?;
    Ok(())
}
