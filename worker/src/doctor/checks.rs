//! Looking.

use std::fs;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::report::{Level, Report};
use crate::config::Config;
use crate::rootfs::mount_writable;
use crate::runtime::{ProbeError, Runtime, RuntimeConfig, RuntimeKind, rootless};

/// How long anything on the network may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A clock that is off by more makes signed addresses and tokens expire early.
const CLOCK_LIMIT_SECS: u64 = 60;
/// The magic number of overlayfs (statfs(2)).
const OVERLAYFS: i64 = 0x794c_7630;
/// Free space below which a worker is soon in trouble.
const COMFORTABLE_BYTES: u64 = 10 << 30;

/// Looks at everything. `supervised` tells whether the process could make namespaces of its own.
pub fn examine(config: &Config, supervised: bool) -> Report {
    let mut report = Report::default();
    kernel(&mut report);
    if !rights(&mut report, supervised) {
        return report;
    }
    cgroups(&mut report, Path::new("/sys/fs/cgroup"));
    let directory = &config.worker.data_dir;
    // A directory of its own: the worker's may be in use.
    let scratch = fs::create_dir_all(directory).and_then(|()| tempfile::tempdir_in(directory));
    match scratch {
        Ok(scratch) => {
            disk(&mut report, directory, &config.runtime);
            overlay(&mut report, scratch.path());
            runtimes(&mut report, &config.runtime, scratch.path());
        }
        Err(error) => {
            let text = format!("cannot write to {}: {error}", directory.display());
            report.add(Level::Fail, "disk", text, Some("set worker.data_dir"));
        }
    }
    registries(&mut report, config);
    coordinator(&mut report, &config.coordinator.url);
    report
}

fn kernel(report: &mut Report) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let text = format!("Linux {release}, {}", std::env::consts::ARCH);
    if is_new_enough(&release) {
        report.add(Level::Ok, "kernel", text, None);
    } else {
        let fix = "root file systems need Linux 6.8 or newer (overlayfs with lowerdir+)";
        report.add(Level::Fail, "kernel", text, Some(fix));
    }
}

fn is_new_enough(release: &str) -> bool {
    let mut numbers = release.split(|byte: char| !byte.is_ascii_digit());
    let mut next = || numbers.next().and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    (next(), next()) >= (6, 8)
}

/// Whether the rest can be looked at.
fn rights(report: &mut Report, supervised: bool) -> bool {
    if rootless::is_needed() {
        for missing in rootless::missing() {
            report.add(Level::Fail, "user", missing.problem, Some(&missing.fix));
        }
        if report.is_usable() {
            let text = "no user namespace could be made";
            report.add(Level::Fail, "user", text, Some("run as root"));
        }
        return false;
    }
    if layer::in_user_namespace() {
        let text = "runs without rights, in a user namespace: device nodes in layers are left out";
        report.add(Level::Ok, "user", text, None);
    } else {
        report.add(Level::Ok, "user", "runs as root", None);
    }
    if supervised {
        let text = "own pid and mount namespace: a killed worker leaves nothing";
        report.add(Level::Ok, "namespaces", text, None);
    } else {
        let text = "cannot make namespaces: a killed worker may leave containers behind";
        let fix = "give it CAP_SYS_ADMIN, and a /proc without masked parts";
        report.add(Level::Warn, "namespaces", text, Some(fix));
    }
    true
}

fn cgroups(report: &mut Report, mount: &Path) {
    let (layout, controllers) = controllers(mount);
    let wanted = ["memory", "pids", "cpu"];
    let missing: Vec<&str> =
        wanted.into_iter().filter(|name| !controllers.iter().any(|found| found == name)).collect();
    if missing.is_empty() {
        let text = format!("{layout}, with {}", wanted.join(", "));
        report.add(Level::Ok, "cgroups", text, None);
    } else {
        let text = format!("{layout}, without {}: their limits do not hold", missing.join(", "));
        let fix = "mount the cgroup hierarchy with these controllers, or delegate them \
                   (systemd: Delegate=yes)";
        report.add(Level::Warn, "cgroups", text, Some(fix));
    }
}

/// The layout in words, and the controllers that there are.
fn controllers(mount: &Path) -> (&'static str, Vec<String>) {
    let words = |path: &Path| -> Vec<String> {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    let unified = mount.join("cgroup.controllers");
    if unified.exists() {
        return ("version 2", words(&unified));
    }
    let entries = fs::read_dir(mount).into_iter().flatten().flatten();
    let names: Vec<String> = entries
        .filter(|entry| entry.path().join("cgroup.procs").exists())
        // Two that are mounted together have both names.
        .flat_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.split(',').map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    if names.is_empty() {
        return ("no hierarchy is mounted", names);
    }
    let is_hybrid = names.iter().any(|name| name == "unified");
    (if is_hybrid { "version 1 with a version 2 tree beside it" } else { "version 1" }, names)
}

fn disk(report: &mut Report, directory: &Path, limits: &RuntimeConfig) {
    let shown = directory.display();
    let kind = rustix::fs::statfs(directory).map(|found| found.f_type);
    if kind.is_ok_and(|kind| kind == OVERLAYFS) {
        let text = format!("{shown} lies on an overlay, which cannot hold another one");
        let fix = "set worker.data_dir to a directory of a disk, or mount a volume there";
        report.add(Level::Fail, "disk", text, Some(fix));
        return;
    }
    let Ok(found) = rustix::fs::statvfs(directory) else { return };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let text = format!("{shown}: {} MiB and {} files are free", free >> 20, found.f_favail);
    if free < limits.min_free_bytes {
        let fix = "free some space: every RUN would be ended (runtime.min_free_bytes)";
        report.add(Level::Fail, "disk", text, Some(fix));
    } else if free < COMFORTABLE_BYTES || (found.f_files > 0 && found.f_favail < 100_000) {
        report.add(Level::Warn, "disk", text, Some("images and layers soon fill that"));
    } else {
        report.add(Level::Ok, "disk", text, None);
    }
}

fn overlay(report: &mut Report, scratch: &Path) {
    let [low, upper, work, at] = ["low", "upper", "work", "at"].map(|name| scratch.join(name));
    let tried = [&low, &upper, &work, &at]
        .into_iter()
        .try_for_each(fs::create_dir)
        .and_then(|()| mount_writable(std::slice::from_ref(&low), &upper, &work, &at))
        .and_then(|mount| fs::write(mount.path().join("file"), "x"));
    match tried {
        Ok(()) => report.add(Level::Ok, "overlay", "root file systems can be mounted", None),
        Err(error) => {
            let text = format!("cannot mount an overlay: {error}");
            let fix =
                "the worker needs CAP_SYS_ADMIN, or a kernel with overlayfs in user namespaces";
            report.add(Level::Fail, "overlay", text, Some(fix));
        }
    }
}

fn runtimes(report: &mut Report, config: &RuntimeConfig, scratch: &Path) {
    match Runtime::probe(config, scratch) {
        Ok(runtime) => {
            let text = format!("{} has run a container", runtime.name());
            report.add(Level::Ok, "runtime", text, None);
            of_runtime(report, &runtime);
        }
        Err(error) => {
            let fix = match &error {
                ProbeError::NoneWorks(_) => "apt-get install crun (or runc)",
                ProbeError::NoNetwork(_) => "or set runtime.network = \"auto\"",
                ProbeError::Deny(_) => "correct the configuration",
                ProbeError::Cgroup(_) => "or delegate a cgroup (systemd: Delegate=yes)",
                ProbeError::Prepare(_) => "see the message",
            };
            report.add(Level::Fail, "runtime", chain(&error), Some(fix));
        }
    }
    if config.kind == RuntimeKind::Auto && config.path.is_none() {
        // The other one is worth a line: it is what runs when the first one breaks.
        let other = RuntimeConfig { kind: RuntimeKind::Runc, ..config.clone() };
        if let Ok(runtime) = Runtime::probe(&other, scratch) {
            let text = format!("{} works too", runtime.name());
            report.add(Level::Ok, "runtime", text, None);
        }
    }
}

fn of_runtime(report: &mut Report, runtime: &Runtime) {
    if runtime.filters_calls() {
        let text = "system calls of RUN are filtered with Docker's default profile";
        report.add(Level::Ok, "seccomp", text, None);
    } else {
        let text = "system calls of RUN are not filtered";
        let fix =
            "install a runtime that was built with libseccomp, and leave runtime.seccomp alone";
        report.add(Level::Warn, "seccomp", text, Some(fix));
    }
    if runtime.limits_hold() {
        report.add(Level::Ok, "limits", "limits of memory, CPU and processes hold", None);
    } else {
        let text = "limits of memory, CPU and processes do not hold";
        let fix = "delegate a cgroup to the worker's user (systemd: Delegate=yes)";
        report.add(Level::Warn, "limits", text, Some(fix));
    }
    match (runtime.no_network(), runtime.network_name()) {
        (Some(problem), _) => {
            let text = format!("RUN reaches no network: {problem}");
            let fix = "apt-get install slirp4netns nftables iproute2; make /dev/net/tun readable \
                       and writable for the worker's user";
            report.add(Level::Warn, "network", text, Some(fix));
        }
        (None, "isolated") => {
            report.add(Level::Ok, "network", "RUN reaches no network, as configured", None);
        }
        (None, name) => {
            let ipv6 = if runtime.has_ipv6() {
                "with IPv6"
            } else {
                "without IPv6: this host has no default route for it"
            };
            let text = format!("RUN reaches the internet through {name}, {ipv6}");
            report.add(Level::Ok, "network", text, None);
        }
    }
}

/// Only what the configuration names: a worker that pulls nothing needs no registry.
fn registries(report: &mut Report, config: &Config) {
    let mirrors = config.registries.values().flat_map(|registry| &registry.mirrors);
    for host in config.registries.keys().chain(mirrors) {
        let known = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let is_plain =
            config.registries.get(host).is_some_and(|registry| registry.plain_http == Some(true));
        let port = if is_plain { 80 } else { 443 };
        let address =
            if known.contains(':') { known.to_owned() } else { format!("{known}:{port}") };
        match connect(&address) {
            Ok(()) => report.add(Level::Ok, "registry", format!("{host} answers"), None),
            Err(error) => {
                let text = format!("{host} does not answer: {error}");
                report.add(Level::Warn, "registry", text, Some("check name, proxy and firewall"));
            }
        }
    }
}

fn connect(address: &str) -> std::io::Result<()> {
    let mut last = std::io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, ANSWER_LIMIT) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether the coordinator answers, and whether its clock and this one agree.
fn coordinator(report: &mut Report, url: &str) {
    if url.is_empty() {
        let text = "no coordinator is configured";
        report.add(
            Level::Warn,
            "coordinator",
            text,
            Some("set coordinator.url and coordinator.token"),
        );
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        runtime.block_on(async {
            let asking = client::http_client().get(url).timeout(ANSWER_LIMIT);
            asking.send().await.map_err(|error| chain(&error))
        })
    });
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let text = format!("{url} does not answer: {error}");
            report.add(Level::Fail, "coordinator", text, Some("check coordinator.url"));
            return;
        }
    };
    report.add(Level::Ok, "coordinator", format!("{url} answers"), None);
    let date = answer.headers().get("date").and_then(|value| value.to_str().ok());
    let Some(off) = date.and_then(|date| seconds_off(date, SystemTime::now())) else { return };
    if off <= CLOCK_LIMIT_SECS {
        let text = format!("the clock is within {} s of the coordinator's", off.max(1));
        report.add(Level::Ok, "time", text, None);
    } else {
        let text = format!("the clock is {off} s off the coordinator's");
        report.add(Level::Warn, "time", text, Some("run an NTP client on both machines"));
    }
}

/// How far a date of HTTP (RFC 9110, "Date/Time Formats") is from `now`.
fn seconds_off(date: &str, now: SystemTime) -> Option<u64> {
    let format = time::format_description::parse_borrowed::<2>(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT",
    )
    .ok()?;
    let date = time::PrimitiveDateTime::parse(date, &format).ok()?.assume_utc();
    let now = time::OffsetDateTime::from(now);
    Some((now - date).whole_seconds().unsigned_abs())
}

/// An error with all of its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compared_by_number() {
        for (release, expected) in [
            ("6.8.0-31-generic", true),
            ("6.18.44-fc-v595", true),
            ("7.0", true),
            ("6.7.12", false),
            ("5.15.0", false),
            ("nonsense", false),
        ] {
            assert_eq!(is_new_enough(release), expected, "{release}");
        }
    }

    #[test]
    fn every_layout_of_cgroups_is_named_with_its_controllers() {
        let found = |files: &[(&str, &str)]| {
            let mount = tempfile::tempdir().unwrap();
            for (name, content) in files {
                let path = mount.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            let mut report = Report::default();
            cgroups(&mut report, mount.path());
            report.findings.remove(0)
        };
        let all = [("memory/cgroup.procs", ""), ("pids/cgroup.procs", "")];
        let finding = found(&[("cgroup.controllers", "cpuset cpu io memory pids\n")]);
        assert_eq!((finding.level, finding.text.contains("version 2")), (Level::Ok, true));
        let finding = found(&[all[0], all[1], ("cpu,cpuacct/cgroup.procs", "")]);
        assert_eq!((finding.level, finding.text.contains("version 1,")), (Level::Ok, true));
        let finding = found(&[all[0], ("unified/cgroup.procs", "")]);
        assert_eq!(finding.level, Level::Warn);
        assert!(finding.text.contains("beside it, without pids, cpu"), "{finding:?}");
        let finding = found(&[]);
        assert!(finding.text.contains("no hierarchy"), "{finding:?}");
    }

    #[test]
    fn clocks_are_compared_by_the_date_of_an_answer() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 + 90);
        assert_eq!(seconds_off("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(90));
        assert_eq!(seconds_off("yesterday", now), None);
    }
}
