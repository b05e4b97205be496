//! Choosing a runtime, by running a container: a version says little about a host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use super::cgroup::{Cgroup, Parent};
use super::config::{DefaultNetwork, RuntimeConfig, RuntimeKind};
use super::network::NetworkPool;

/// An OCI runtime that is known to work on this host.
#[derive(Debug, Clone)]
pub struct Runtime {
    pub(super) program: PathBuf,
    pub(super) kind: RuntimeKind,
    pub(super) config: RuntimeConfig,
    /// Where the runtime keeps its containers' state.
    pub(super) state: PathBuf,
    pub(super) network: Option<NetworkPool>,
    pub(super) cgroups: Arc<Parent>,
    /// Whether the runtime has to be kept from seeing the v2 tree of a hybrid host.
    pub(super) hide_unified: bool,
}

/// No runtime works here.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// None could run a container.
    #[error("no OCI runtime can run a container here: {}", .0.join("; "))]
    NoneWorks(Vec<String>),
    /// The configuration wants a network that cannot be had.
    #[error(
        "runtime.network = \"slirp\" needs the program {0}: install it (Debian: apt-get install slirp4netns nftables iproute2)"
    )]
    NoNetwork(&'static str),
    /// Cgroups cannot be made: limits would not hold.
    #[error("cannot make a cgroup below /sys/fs/cgroup: run as root, or delegate it")]
    Cgroup(#[source] io::Error),
    /// The probe itself failed.
    #[error("could not prepare the probe container")]
    Prepare(#[source] io::Error),
}

impl Runtime {
    /// Tries the runtimes that `config` allows, in order of speed. `scratch` is an existing
    /// directory of the worker, on a file system that may hold executables.
    pub fn probe(config: &RuntimeConfig, scratch: &Path) -> Result<Self, ProbeError> {
        let kinds: &[RuntimeKind] = match config.kind {
            RuntimeKind::Auto => &[RuntimeKind::Crun, RuntimeKind::Runc],
            RuntimeKind::Crun => &[RuntimeKind::Crun],
            RuntimeKind::Runc => &[RuntimeKind::Runc],
        };
        let network = network_pool(config)?;
        let cgroups = Arc::new(Parent::make(scratch).map_err(ProbeError::Cgroup)?);
        let mut problems = Vec::new();
        for kind in kinds {
            let name = program_name(*kind);
            let program = match &config.path {
                Some(path) => path.clone(),
                None => match find_program(name) {
                    Some(path) => path,
                    None => {
                        problems.push(format!("{name} is not installed"));
                        continue;
                    }
                },
            };
            // Only crun refuses hybrid hosts; hiding the v2 tree from it is enough.
            let attempts: &[bool] =
                if *kind == RuntimeKind::Crun && is_hybrid() { &[false, true] } else { &[false] };
            for hide_unified in attempts {
                let runtime = Self {
                    program: program.clone(),
                    kind: *kind,
                    config: config.clone(),
                    state: scratch.join("runtime"),
                    network: None,
                    cgroups: Arc::clone(&cgroups),
                    hide_unified: *hide_unified,
                };
                match runtime.try_out(scratch).map_err(ProbeError::Prepare)? {
                    Ok(()) => return Ok(Self { network, ..runtime }),
                    Err(problem) => problems.push(format!("{name}: {problem}")),
                }
            }
        }
        Err(ProbeError::NoneWorks(problems))
    }

    /// `crun` or `runc`.
    pub fn name(&self) -> &'static str {
        program_name(self.kind)
    }

    /// What a RUN with the default network reaches, in words.
    pub fn network_name(&self) -> &'static str {
        match self.network {
            Some(_) => "slirp4netns",
            None => "isolated",
        }
    }

    /// The runtime's command line up to the subcommand.
    pub(super) fn command(&self) -> Command {
        let mut command = if self.hide_unified {
            let mut shell = Command::new("unshare");
            shell.args(["--mount", "--propagation", "slave", "--", "sh", "-c"]);
            shell.arg("umount /sys/fs/cgroup/unified && exec \"$0\" \"$@\"").arg(&self.program);
            shell
        } else {
            Command::new(&self.program)
        };
        command.arg("--root").arg(&self.state);
        if self.kind == RuntimeKind::Crun {
            command.arg("--cgroup-manager=cgroupfs");
        }
        command
    }

    /// Runs a container whose only program does not exist. A runtime that works says just that,
    /// after it has set up everything else.
    fn try_out(&self, scratch: &Path) -> io::Result<Result<(), String>> {
        let bundle = tempfile::Builder::new().prefix("probe-").tempdir_in(scratch)?;
        let rootfs = bundle.path().join("rootfs");
        for directory in ["proc", "sys", "dev"] {
            fs::create_dir_all(rootfs.join(directory))?;
        }
        fs::create_dir_all(&self.state)?;
        let id = format!("probe-{}", uuid::Uuid::now_v7().simple());
        let cgroup = Cgroup::make(&self.cgroups, &id, 0)?;
        let op = common::plan::RunOp {
            network: common::plan::Network::None,
            ..common::plan::RunOp::new(vec!["/slipway-probe-no-such-program".to_owned()])
        };
        let around = super::spec::Surroundings {
            rootfs: &rootfs,
            identity: &super::Identity {
                uid: 0,
                gid: 0,
                additional_gids: Vec::new(),
                home: "/".to_owned(),
            },
            mounts: &[],
            secret_env: &[],
            cgroup_path: &cgroup.container_path(),
            network: super::spec::NetworkNamespace::New,
            pids: 64,
            cpu_millis: None,
        };
        let config = super::spec::config(&op, &around);
        fs::write(bundle.path().join("config.json"), config.to_string())?;
        let output = self
            .command()
            .arg("run")
            .arg("--bundle")
            .arg(bundle.path())
            .arg(&id)
            .stdin(Stdio::null())
            .output()?;
        self.command().args(["delete", "--force", &id]).stderr(Stdio::null()).output()?;
        drop(cgroup);
        Ok(judge(&output))
    }
}

fn judge(output: &Output) -> Result<(), String> {
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("slipway-probe-no-such-program") {
        return Ok(());
    }
    let first: String = text.lines().next().unwrap_or("no message").chars().take(300).collect();
    Err(format!("{first} ({})", output.status))
}

fn program_name(kind: RuntimeKind) -> &'static str {
    match kind {
        RuntimeKind::Auto | RuntimeKind::Crun => "crun",
        RuntimeKind::Runc => "runc",
    }
}

fn network_pool(config: &RuntimeConfig) -> Result<Option<NetworkPool>, ProbeError> {
    let wanted = config.network;
    if wanted == DefaultNetwork::Isolated {
        return Ok(None);
    }
    let missing =
        ["slirp4netns", "nft", "ip"].into_iter().find(|name| find_program(name).is_none());
    match (missing, wanted) {
        (None, _) => Ok(Some(NetworkPool::new(&config.deny_networks))),
        (Some(name), DefaultNetwork::Slirp) => Err(ProbeError::NoNetwork(name)),
        (Some(_), _) => Ok(None),
    }
}

/// Looks in `PATH` and where administration programs lie.
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// v1 controllers with a v2 tree beside them, as older systemd versions mount it.
fn is_hybrid() -> bool {
    Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_installed_runtime_passes_the_probe() {
        for kind in [RuntimeKind::Crun, RuntimeKind::Runc] {
            let scratch = tempfile::tempdir().unwrap();
            let config = RuntimeConfig { kind, ..RuntimeConfig::default() };
            let runtime = Runtime::probe(&config, scratch.path()).unwrap();
            assert_eq!(runtime.name(), program_name(kind));
        }
    }

    #[test]
    fn a_program_that_is_no_runtime_fails_the_probe_with_its_words() {
        let scratch = tempfile::tempdir().unwrap();
        let config = RuntimeConfig {
            kind: RuntimeKind::Runc,
            path: Some("/bin/false".into()),
            ..RuntimeConfig::default()
        };
        let error = Runtime::probe(&config, scratch.path()).unwrap_err();
        assert!(error.to_string().contains("runc"), "{error}");
    }
}
