//! Choosing a runtime, by running a container: a version says little about a host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use super::cgroup::{Cgroup, Parent};
use super::config::{DefaultNetwork, RuntimeConfig, RuntimeKind, SeccompMode};
use super::deny::Deny;
use super::network::NetworkPool;
use super::seccomp::Filter;

/// An OCI runtime that is known to work on this host.
#[derive(Debug, Clone)]
pub struct Runtime {
    pub(super) program: PathBuf,
    pub(super) kind: RuntimeKind,
    pub(super) config: RuntimeConfig,
    /// Where the runtime keeps its containers' state.
    pub(super) state: PathBuf,
    pub(super) network: Option<NetworkPool>,
    /// Why there is no network, where one was wanted.
    no_network: Option<String>,
    /// None in a user namespace to which no cgroup was given: then no limit of memory, CPU or
    /// processes holds.
    pub(super) cgroups: Option<Arc<Parent>>,
    /// Whether the runtime has to be kept from seeing the v2 tree of a hybrid host.
    pub(super) hide_unified: bool,
    /// The filter of a sandbox's system calls.
    pub(super) seccomp: Option<Arc<Filter>>,
}

/// No runtime works here.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// None could run a container.
    #[error("no OCI runtime can run a container here: {}", .0.join("; "))]
    NoneWorks(Vec<String>),
    /// The configuration wants a network that cannot be had.
    #[error("runtime.network = \"slirp\" cannot be had: {0}")]
    NoNetwork(String),
    /// An entry of the configuration means nothing.
    #[error("runtime.deny_networks: {0}")]
    Deny(#[from] super::deny::DenyError),
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
        let (network, no_network) = network_pool(config)?;
        let cgroups = match Parent::make(scratch) {
            Ok(parent) => Some(Arc::new(parent)),
            Err(_) if layer::in_user_namespace() => None,
            Err(error) => return Err(ProbeError::Cgroup(error)),
        };
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
            let mut runtime = Self {
                program,
                kind: *kind,
                config: config.clone(),
                state: scratch.join("runtime"),
                network: None,
                no_network: no_network.clone(),
                cgroups: cgroups.clone(),
                hide_unified: false,
                seccomp: None,
            };
            let filter = runtime.filter();
            if filter.is_none() && config.seccomp == SeccompMode::Required {
                problems.push(format!("{name}: cannot filter system calls (seccomp)"));
                continue;
            }
            // Only crun refuses hybrid hosts; hiding the v2 tree from it is enough.
            let hides: &[bool] =
                if *kind == RuntimeKind::Crun && is_hybrid() { &[false, true] } else { &[false] };
            let may_do_without = filter.is_none() || config.seccomp == SeccompMode::Auto;
            let filters = filter.into_iter().map(Some).chain(may_do_without.then_some(None));
            for (seccomp, hide_unified) in
                filters.flat_map(|filter| hides.iter().map(move |hide| (filter.clone(), *hide)))
            {
                runtime.seccomp = seccomp;
                runtime.hide_unified = hide_unified;
                match runtime.try_out(scratch).map_err(ProbeError::Prepare)? {
                    Ok(()) => {
                        runtime.compile_filter(scratch).map_err(ProbeError::Prepare)?;
                        return Ok(Self { network, ..runtime });
                    }
                    Err(problem) => problems.push(format!("{name}: {problem}")),
                }
            }
        }
        Err(ProbeError::NoneWorks(problems))
    }

    /// The profile, if it is wanted and the runtime was built to apply one: crun that was not says
    /// nothing when it is given one, so that here only its own word tells.
    fn filter(&self) -> Option<Arc<Filter>> {
        if self.config.seccomp == SeccompMode::Off {
            return None;
        }
        let output = Command::new(&self.program).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
        let can_filter = text.contains("+seccomp") || text.contains("libseccomp:");
        let profile = super::spec::sandbox_profile().filter(|_| can_filter)?;
        Some(Arc::new(Filter { profile, compiled: None }))
    }

    /// Whether system calls of a RUN are filtered.
    pub fn filters_calls(&self) -> bool {
        self.seccomp.is_some()
    }

    /// Whether limits of memory, CPU and processes hold.
    pub fn limits_hold(&self) -> bool {
        self.cgroups.is_some()
    }

    /// Why a RUN reaches no network although it should.
    pub fn no_network(&self) -> Option<&str> {
        self.no_network.as_deref()
    }

    /// How commands run.
    pub fn config(&self) -> &RuntimeConfig {
        &self.config
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

    /// Whether IPv6 leads outward from a RUN with the default network.
    pub fn has_ipv6(&self) -> bool {
        self.network.as_ref().is_some_and(NetworkPool::has_ipv6)
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
        match (self.kind, &self.cgroups) {
            (RuntimeKind::Runc, Some(_)) => {}
            // It does without cgroups when it may not make any.
            (RuntimeKind::Runc, None) => {
                command.arg("--rootless=true");
            }
            (_, Some(_)) => {
                command.arg("--cgroup-manager=cgroupfs");
            }
            (_, None) => {
                command.arg("--cgroup-manager=disabled");
            }
        }
        command
    }

    /// Runs a container whose only program does not exist. A runtime that works says just that,
    /// after it has set up everything else.
    fn try_out(&self, scratch: &Path) -> io::Result<Result<(), String>> {
        let probe = Probe::prepare(self, scratch, "/slipway-probe-no-such-program")?;
        let output = probe.start(self, "run").stdin(Stdio::null()).output()?;
        probe.remove(self)?;
        Ok(judge(&output))
    }

    /// Has crun compile the filter once, instead of for every container: it leaves the compiled one
    /// beside the state of a container that was made and not started.
    fn compile_filter(&mut self, scratch: &Path) -> io::Result<()> {
        use base64::Engine as _;
        let (RuntimeKind::Crun, Some(filter)) = (self.kind, &self.seccomp) else { return Ok(()) };
        let probe = Probe::prepare(self, scratch, "/program")?;
        let made = probe
            .start(self, "create")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        let compiled = fs::read(self.state.join(&probe.id).join("seccomp.bpf"));
        probe.remove(self)?;
        match compiled {
            // Instructions have eight bytes.
            Ok(bytes) if made.success() && !bytes.is_empty() && bytes.len() % 8 == 0 => {
                let compiled = Some(base64::prelude::BASE64_STANDARD.encode(bytes));
                let profile = filter.profile.clone();
                self.seccomp = Some(Arc::new(Filter { profile, compiled }));
            }
            // Another version: it compiles every time, and all is well but slower.
            _ => tracing::debug!("crun left no compiled filter"),
        }
        Ok(())
    }
}

/// A container that is made to see what comes of it.
struct Probe {
    bundle: tempfile::TempDir,
    id: String,
    _cgroup: Option<Cgroup>,
}

impl Probe {
    /// Prepares one that would run `program`; `/program` is there.
    fn prepare(runtime: &Runtime, scratch: &Path, program: &str) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let bundle = tempfile::Builder::new().prefix("probe-").tempdir_in(scratch)?;
        let rootfs = bundle.path().join("rootfs");
        for directory in ["proc", "sys", "dev"] {
            fs::create_dir_all(rootfs.join(directory))?;
        }
        fs::write(rootfs.join("program"), "")?;
        fs::set_permissions(rootfs.join("program"), fs::Permissions::from_mode(0o755))?;
        fs::create_dir_all(&runtime.state)?;
        let id = format!("probe-{}", uuid::Uuid::now_v7().simple());
        let cgroups = runtime.cgroups.as_ref();
        let cgroup = cgroups.map(|parent| Cgroup::make(parent, &id, 0)).transpose()?;
        let op = common::plan::RunOp {
            network: common::plan::Network::None,
            ..common::plan::RunOp::new(vec![program.to_owned()])
        };
        let cgroup_path = cgroup.as_ref().map(Cgroup::container_path);
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
            cgroup_path: cgroup_path.as_deref(),
            network: super::spec::NetworkNamespace::New,
            pids: 64,
            cpu_millis: None,
            seccomp: runtime.seccomp.as_deref(),
        };
        let config = super::spec::config(&op, &around);
        fs::write(bundle.path().join("config.json"), config.to_string())?;
        Ok(Self { bundle, id, _cgroup: cgroup })
    }

    fn start(&self, runtime: &Runtime, subcommand: &str) -> Command {
        let mut command = runtime.command();
        command.arg(subcommand).arg("--bundle").arg(self.bundle.path()).arg(&self.id);
        command
    }

    fn remove(&self, runtime: &Runtime) -> io::Result<()> {
        let mut command = runtime.command();
        command.args(["delete", "--force", &self.id]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().map(drop)
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

/// The networks, or why there are none.
fn network_pool(
    config: &RuntimeConfig,
) -> Result<(Option<NetworkPool>, Option<String>), ProbeError> {
    let deny = config.deny_networks.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>();
    let deny: Vec<Deny> = deny?;
    let wanted = config.network;
    if wanted == DefaultNetwork::Isolated {
        return Ok((None, None));
    }
    let missing: Vec<&str> = ["slirp4netns", "nft", "ip"]
        .into_iter()
        .filter(|name| find_program(name).is_none())
        .collect();
    let problem = if missing.is_empty() {
        let tunnel = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
        tunnel.err().map(|error| format!("cannot open /dev/net/tun: {error}"))
    } else {
        Some(format!(
            "missing {} (Debian: apt-get install slirp4netns nftables iproute2)",
            missing.join(", ")
        ))
    };
    match (problem, wanted) {
        (None, _) => Ok((Some(NetworkPool::new(&deny)), None)),
        (Some(problem), DefaultNetwork::Slirp) => Err(ProbeError::NoNetwork(problem)),
        (Some(problem), _) => Ok((None, Some(problem))),
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
pub(super) fn is_hybrid() -> bool {
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
            assert!(runtime.filters_calls());
            let compiled = runtime.seccomp.as_ref().unwrap().compiled.is_some();
            assert_eq!(compiled, kind == RuntimeKind::Crun);
        }
    }

    #[test]
    fn a_runtime_that_cannot_filter_is_refused_where_a_filter_is_required() {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = tempfile::tempdir().unwrap();
        // crun as it is, but for what it says of itself.
        let program = scratch.path().join("crun");
        let script =
            "#!/bin/sh\n[ \"$1\" != --version ] || { echo crun +CAP; exit; }\nexec crun \"$@\"\n";
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let config = |seccomp| RuntimeConfig {
            kind: RuntimeKind::Crun,
            path: Some(program.clone()),
            seccomp,
            ..RuntimeConfig::default()
        };
        let error = Runtime::probe(&config(SeccompMode::Required), scratch.path()).unwrap_err();
        assert!(error.to_string().contains("seccomp"), "{error}");
        let runtime = Runtime::probe(&config(SeccompMode::Auto), scratch.path()).unwrap();
        assert!(!runtime.filters_calls());
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
