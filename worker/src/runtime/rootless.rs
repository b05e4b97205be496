//! A worker that nobody with rights has started.
//!
//! It makes itself a user namespace in which it is root, with the numbers that `/etc/subuid` and
//! `/etc/subgid` give its user, and goes on there as any other worker does. What that cannot have:
//! device nodes in layers (they are left out), and limits of memory, CPU and processes, unless a
//! cgroup was delegated to it (systemd: `Delegate=yes`).

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::probe::find_program;

/// Numbers of users that images need at least: `nobody` is 65534.
const WANTED_NUMBERS: u64 = 65_536;

/// Something that is missing for a worker without rights, and how to get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is wrong.
    pub problem: String,
    /// What helps.
    pub fix: String,
}

/// Whether this process has to make itself a user namespace.
pub fn is_needed() -> bool {
    !rustix::process::geteuid().is_root()
}

/// All that is missing for it.
pub fn missing() -> Vec<Missing> {
    let mut found = Vec::new();
    let mut miss = |problem: String, fix: String| found.push(Missing { problem, fix });
    for (name, package) in
        [("newuidmap", "uidmap"), ("newgidmap", "uidmap"), ("unshare", "util-linux")]
    {
        if find_program(name).is_none() {
            miss(format!("{name} is not installed"), format!("apt-get install {package}"));
        }
    }
    let number = rustix::process::geteuid().as_raw();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = user_name(&passwd, number).unwrap_or_else(|| number.to_string());
    for (file, option) in [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")] {
        let table = fs::read_to_string(file).unwrap_or_default();
        let count = numbers_of(&table, &user, number);
        if count < WANTED_NUMBERS - 1 {
            miss(
                format!("{file} gives {count} numbers to {user}, and images need {WANTED_NUMBERS}"),
                format!("usermod {option} 100000-165535 {user}"),
            );
        }
    }
    for (file, setting) in [
        ("/proc/sys/kernel/unprivileged_userns_clone", "kernel.unprivileged_userns_clone=1"),
        ("/proc/sys/user/max_user_namespaces", "user.max_user_namespaces=10000"),
    ] {
        if fs::read_to_string(file).is_ok_and(|text| text.trim() == "0") {
            let problem = format!("user namespaces are turned off ({file} is 0)");
            miss(problem, format!("sysctl -w {setting}"));
        }
    }
    let restricted = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
    if fs::read_to_string(restricted).is_ok_and(|text| text.trim() == "1") {
        miss(
            "AppArmor restricts user namespaces of programs without a profile".to_owned(),
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give slipway-worker a \
             profile that allows userns"
                .to_owned(),
        );
    }
    found
}

/// Starts this program again, with the same arguments, as root of a new user namespace. Comes back
/// only with an error. Call it before any thread is started.
pub fn enter() -> io::Error {
    if layer::in_user_namespace() {
        return io::Error::other("not root of the user namespace that this program was started in");
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    // It calls newuidmap and newgidmap, which may give a process more than one number.
    Command::new("unshare")
        .args(["--user", "--map-root-user", "--map-users=auto", "--map-groups=auto", "--"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .exec()
}

fn user_name(passwd: &str, number: u32) -> Option<String> {
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = lines.find(|fields| fields.get(2).is_some_and(|uid| *uid == number.to_string()))?;
    Some(found[0].to_owned())
}

/// How many numbers a table gives to a user, who stands there by name or by number (subuid(5)).
fn numbers_of(table: &str, name: &str, number: u32) -> u64 {
    let number = number.to_string();
    let lines = table.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let own =
        lines.filter(|fields| fields.len() == 3 && (fields[0] == name || fields[0] == number));
    // The first block is the one that is used.
    own.map(|fields| fields[2].trim().parse().unwrap_or(0)).next().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_by_name_and_by_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbuild:x:1000:1000::/home/build:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("build"));
        assert_eq!(user_name(passwd, 1001), None);
        let table = "other:1:5\nbuild:100000:65536\n1001:200000:10\nbroken\n";
        assert_eq!(numbers_of(table, "build", 1000), 65_536);
        assert_eq!(numbers_of(table, "1001", 1001), 10);
        assert_eq!(numbers_of(table, "nobody", 65_534), 0);
    }
}
