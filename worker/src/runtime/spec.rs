//! The OCI runtime configuration of one RUN (runtime specification, `config.md`).
//!
//! Masked and read-only paths are Docker's defaults (moby, `daemon/pkg/oci/defaults.go`); Docker sets
//! no-new-privileges only when asked to.

use std::path::Path;

use common::plan::{RunOp, Security};
use serde_json::{Value, json};

use super::capabilities;
use super::mounts::ContainerMount;
use super::seccomp::{COMPILED_ANNOTATION, Filter};
use super::users::Identity;

/// Size of `/dev/shm` unless the build says otherwise.
const DEFAULT_SHM_BYTES: u64 = 64 << 20;

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Masked of every processor: how often it was throttled tells what others compute.
const MASKED_OF_PROCESSORS: &str = "thermal_throttle";

const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// `PATH` where the image has none: what BuildKit supplies.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Host name inside a RUN, as with BuildKit.
pub(super) const HOSTNAME: &str = "buildkitsandbox";

/// What else goes into the configuration.
pub(super) struct Surroundings<'a> {
    /// The mounted root file system.
    pub(super) rootfs: &'a Path,
    /// Who runs the command.
    pub(super) identity: &'a Identity,
    /// What is mounted, in order.
    pub(super) mounts: &'a [ContainerMount],
    /// Variables that stand nowhere but here.
    pub(super) secret_env: &'a [(String, String)],
    /// Path of the container's cgroup, below the hierarchy's root; none where there are none.
    pub(super) cgroup_path: Option<&'a str>,
    /// Network namespace to join; none makes a new one, with loopback only.
    pub(super) network: NetworkNamespace,
    /// Limit of processes and threads.
    pub(super) pids: u32,
    /// CPU time per wall time, in thousandths of a CPU; none is no limit.
    pub(super) cpu_millis: Option<u32>,
    /// The filter of a sandbox's system calls, where the runtime can filter.
    pub(super) seccomp: Option<&'a Filter>,
}

/// Which network namespace a container uses.
pub(super) enum NetworkNamespace {
    /// A new one.
    New,
    /// The one at this path.
    Join(std::path::PathBuf),
    /// The worker's.
    Host,
}

/// The configuration.
pub(super) fn config(op: &RunOp, around: &Surroundings<'_>) -> Value {
    // The primary group is among them, as in containerd.
    let Identity { gid, additional_gids, .. } = around.identity;
    let mut groups = additional_gids.clone();
    if !groups.contains(gid) {
        groups.insert(0, *gid);
    }
    let is_sandbox = op.security == Security::Sandbox;
    let capabilities = capabilities::of(op.security);
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {
                "uid": around.identity.uid,
                "gid": around.identity.gid,
                "additionalGids": groups,
            },
            "args": op.argv,
            "env": environment(op, around),
            "cwd": op.working_dir,
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": rlimits(op),
            "noNewPrivileges": false,
        },
        "root": { "path": around.rootfs, "readonly": false },
        "hostname": op.options.hostname.as_deref().unwrap_or(HOSTNAME),
        "mounts": mounts(op, around),
        "linux": {
            "namespaces": namespaces(&around.network),
            "maskedPaths": if is_sandbox { masked_paths() } else { &[] },
            "readonlyPaths": if is_sandbox { &READ_ONLY[..] } else { &[] },
        },
    });
    if let Some(path) = around.cgroup_path {
        config["linux"]["cgroupsPath"] = path.into();
        config["linux"]["resources"] = resources(op, around);
    }
    if let Some(seccomp) = around.seccomp.filter(|_| is_sandbox) {
        config["linux"]["seccomp"] = seccomp.profile.clone();
        if let Some(compiled) = &seccomp.compiled {
            config["annotations"] = json!({ COMPILED_ANNOTATION: compiled });
        }
    }
    config
}

/// The filter of a sandbox's system calls on this machine.
pub(super) fn sandbox_profile() -> Option<Value> {
    super::seccomp::profile(&capabilities::of(Security::Sandbox), std::env::consts::ARCH)
}

fn masked_paths() -> &'static [String] {
    static PATHS: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    PATHS.get_or_init(|| {
        let processors = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten();
        let throttles = processors.flatten().map(|entry| entry.path().join(MASKED_OF_PROCESSORS));
        let throttles = throttles.filter(|path| path.exists());
        let mut paths: Vec<String> = MASKED.map(str::to_owned).to_vec();
        paths.extend(throttles.map(|path| path.display().to_string()));
        paths.sort_unstable();
        paths
    })
}

fn rlimits(op: &RunOp) -> Vec<Value> {
    // RLIM_INFINITY, which is -1 in the options.
    let value = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    let limits = op.options.ulimits.iter().map(|limit| {
        let name = format!("RLIMIT_{}", limit.name.to_ascii_uppercase());
        json!({"type": name, "soft": value(limit.soft), "hard": value(limit.hard)})
    });
    limits.collect()
}

fn resources(op: &RunOp, around: &Surroundings<'_>) -> Value {
    let devices = match op.security {
        Security::Sandbox => device_rules(),
        Security::Insecure => json!([{"allow": true, "access": "rwm"}]),
    };
    let mut resources = json!({
        "devices": devices,
        "pids": { "limit": around.pids },
    });
    if let Some(millis) = around.cpu_millis {
        // Microseconds in each tenth of a second; the kernel takes no quota below one millisecond.
        let quota = (u64::from(millis) * 100).max(1000);
        resources["cpu"] = json!({ "quota": quota, "period": 100_000 });
    }
    resources
}

/// The variables in order; `PATH` and `HOME` are added where they are missing.
fn environment(op: &RunOp, around: &Surroundings<'_>) -> Vec<String> {
    let mut variables: Vec<String> = Vec::with_capacity(op.env.len() + 2);
    let has = |name: &str| op.env.iter().any(|(known, _)| known == name);
    if !has("PATH") {
        variables.push(format!("PATH={DEFAULT_PATH}"));
    }
    let unkeyed = op.unkeyed_env.iter().filter(|(name, _)| !has(name));
    variables.extend(op.env.iter().chain(unkeyed).map(|(name, value)| format!("{name}={value}")));
    if !has("HOME") {
        variables.push(format!("HOME={}", around.identity.home));
    }
    variables.extend(around.secret_env.iter().map(|(name, value)| format!("{name}={value}")));
    variables
}

fn mounts(op: &RunOp, around: &Surroundings<'_>) -> Vec<Value> {
    let is_sandbox = op.security == Security::Sandbox;
    let kernel = if is_sandbox { "ro" } else { "rw" };
    let shm_bytes = op.options.shm_bytes.unwrap_or(DEFAULT_SHM_BYTES);
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc",
            "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", format!("size={shm_bytes}")]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", kernel]}),
    ];
    if around.cgroup_path.is_some() {
        mounts.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", kernel]}));
    }
    mounts.extend(around.mounts.iter().map(ContainerMount::config));
    mounts
}

/// Nothing but the harmless devices of Docker's default list.
fn device_rules() -> Value {
    let allow = |kind: &str, major: i64, minor: Option<i64>| match minor {
        Some(minor) => {
            json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": "rwm"})
        }
        None => json!({"allow": true, "type": kind, "major": major, "access": "rwm"}),
    };
    json!([
        {"allow": false, "access": "rwm"},
        // Nodes may be made (mknod), but not opened, as Docker has it.
        {"allow": true, "type": "c", "access": "m"},
        {"allow": true, "type": "b", "access": "m"},
        allow("c", 1, Some(3)),
        allow("c", 1, Some(5)),
        allow("c", 1, Some(7)),
        allow("c", 1, Some(8)),
        allow("c", 1, Some(9)),
        allow("c", 5, Some(0)),
        allow("c", 5, Some(1)),
        allow("c", 5, Some(2)),
        allow("c", 136, None),
    ])
}

fn namespaces(network: &NetworkNamespace) -> Vec<Value> {
    let mut namespaces: Vec<Value> =
        ["pid", "ipc", "uts", "mount", "cgroup"].iter().map(|kind| json!({"type": kind})).collect();
    match network {
        NetworkNamespace::New => namespaces.push(json!({"type": "network"})),
        NetworkNamespace::Join(path) => {
            namespaces.push(json!({"type": "network", "path": path}));
        }
        NetworkNamespace::Host => {}
    }
    namespaces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(env: &[(&str, &str)]) -> RunOp {
        RunOp {
            env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            unkeyed_env: vec![("http_proxy".into(), "p".into())],
            ..RunOp::new(vec!["/bin/sh".into()])
        }
    }

    #[test]
    fn path_and_home_are_supplied_only_where_missing() {
        let identity =
            Identity { uid: 0, gid: 0, additional_gids: Vec::new(), home: "/root".to_owned() };
        let around = Surroundings {
            rootfs: Path::new("/"),
            identity: &identity,
            mounts: &[],
            secret_env: &[("TOKEN".to_owned(), "t".to_owned())],
            cgroup_path: None,
            network: NetworkNamespace::New,
            pids: 1,
            cpu_millis: None,
            seccomp: None,
        };
        let plain = environment(&op(&[("A", "1")]), &around);
        let path = format!("PATH={DEFAULT_PATH}");
        assert_eq!(plain, [path.as_str(), "A=1", "http_proxy=p", "HOME=/root", "TOKEN=t"]);
        let given =
            environment(&op(&[("PATH", "/x"), ("HOME", "/y"), ("http_proxy", "q")]), &around);
        assert_eq!(given, ["PATH=/x", "HOME=/y", "http_proxy=q", "TOKEN=t"]);
    }
}
