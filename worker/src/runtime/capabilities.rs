//! Capability sets of containers.

use std::sync::OnceLock;

use common::plan::Security;

/// All of capabilities(7), by number.
const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a container has that is not privileged: mask `00000000a80425fb` (moby,
/// `daemon/pkg/oci/caps/defaults.go`).
const SANDBOX: u64 = 0xa804_25fb;

/// The names of what a container of this kind gets. Nobody can give what he lacks himself: a worker
/// that was started with fewer capabilities gives those.
pub(super) fn of(security: Security) -> Vec<&'static str> {
    match security {
        Security::Sandbox => names(SANDBOX & own()),
        Security::Insecure => names(own()),
    }
}

/// Those that this process may hand on.
fn own() -> u64 {
    static OWN: OnceLock<u64> = OnceLock::new();
    *OWN.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        bounding_set(&status).unwrap_or(u64::MAX)
    })
}

fn bounding_set(status: &str) -> Option<u64> {
    let digits = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(digits.trim(), 16).ok()
}

fn names(mask: u64) -> Vec<&'static str> {
    let numbered = ALL.iter().enumerate();
    numbered.filter(|(number, _)| mask >> number & 1 == 1).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_has_the_fourteen_of_docker() {
        let names = names(SANDBOX);
        assert_eq!(names.len(), 14);
        for name in ["CAP_CHOWN", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SYS_CHROOT"] {
            assert!(names.contains(&name), "{name}");
        }
        assert!(!names.contains(&"CAP_SYS_ADMIN"));
    }

    #[test]
    fn what_the_worker_lacks_is_not_given() {
        let status = "Name:\tx\nCapBnd:\t000001fffeffffff\nCapAmb:\t0000000000000000\n";
        let names = names(bounding_set(status).unwrap());
        assert_eq!(names.len(), 40);
        assert!(!names.contains(&"CAP_SYS_RESOURCE"));
    }
}
