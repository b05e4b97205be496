//! The OCI runtime configuration of one RUN (runtime specification, `config.md`).
//!
//! Capabilities, masked and read-only paths are Docker's defaults (moby, `oci/defaults.go` and
//! `oci/caps/defaults.go`).

use std::path::Path;

use common::plan::RunOp;
use serde_json::{Value, json};

use super::users::Identity;

/// The capability set of a container that is not privileged: mask `00000000a80425fb`.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

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
    /// Files bound into the container: source, target.
    pub(super) bound_files: &'a [(std::path::PathBuf, String)],
    /// Path of the container's cgroup, below the hierarchy's root.
    pub(super) cgroup_path: &'a str,
    /// Network namespace to join; none makes a new one, with loopback only.
    pub(super) network: NetworkNamespace,
    /// Limit of processes and threads.
    pub(super) pids: u32,
    /// CPU time per wall time, in thousandths of a CPU; none is no limit.
    pub(super) cpu_millis: Option<u32>,
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
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {
                "uid": around.identity.uid,
                "gid": around.identity.gid,
                "additionalGids": around.identity.additional_gids,
            },
            "args": op.argv,
            "env": environment(op, around.identity),
            "cwd": op.working_dir,
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES,
            },
            "rlimits": [],
            "noNewPrivileges": false,
        },
        "root": { "path": around.rootfs, "readonly": false },
        "hostname": HOSTNAME,
        "mounts": mounts(around),
        "linux": {
            "cgroupsPath": around.cgroup_path,
            "resources": resources(around),
            "namespaces": namespaces(&around.network),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    })
}

fn resources(around: &Surroundings<'_>) -> Value {
    let mut resources = json!({
        "devices": device_rules(),
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
fn environment(op: &RunOp, identity: &Identity) -> Vec<String> {
    let mut variables: Vec<String> = Vec::with_capacity(op.env.len() + 2);
    let has = |name: &str| op.env.iter().any(|(known, _)| known == name);
    if !has("PATH") {
        variables.push(format!("PATH={DEFAULT_PATH}"));
    }
    let unkeyed = op.unkeyed_env.iter().filter(|(name, _)| !has(name));
    variables.extend(op.env.iter().chain(unkeyed).map(|(name, value)| format!("{name}={value}")));
    if !has("HOME") {
        variables.push(format!("HOME={}", identity.home));
    }
    variables
}

fn mounts(around: &Surroundings<'_>) -> Vec<Value> {
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc",
            "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}),
    ];
    mounts.extend(around.bound_files.iter().map(|(source, target)| {
        json!({"destination": target, "type": "bind", "source": source,
            "options": ["bind", "ro", "nosuid", "nodev"]})
    }));
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
        let plain = environment(&op(&[("A", "1")]), &identity);
        let path = format!("PATH={DEFAULT_PATH}");
        assert_eq!(plain, [path.as_str(), "A=1", "http_proxy=p", "HOME=/root"]);
        let given =
            environment(&op(&[("PATH", "/x"), ("HOME", "/y"), ("http_proxy", "q")]), &identity);
        assert_eq!(given, ["PATH=/x", "HOME=/y", "http_proxy=q"]);
    }
}
