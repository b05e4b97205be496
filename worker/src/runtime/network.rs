//! The default network of a RUN: the internet, through a user-space stack.
//!
//! Each network namespace has a tap device served by slirp4netns, which opens ordinary sockets on
//! behalf of the container and refuses the host's loopback. Rules inside the namespace drop
//! link-local addresses (cloud metadata) and whatever the operator lists; a container lacks the
//! capability to change them. IPv6 leads outward where the worker's own network does; elsewhere
//! commands would wait for answers that never come. Its loopback is always there. Nothing is set up in the host's own network, so nothing can be left
//! there: the namespace, its rules and its device die with the worker.
//!
//! Making one takes tens of milliseconds, so namespaces are kept and used again, one at a time.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use super::deny::Deny;

/// The address that slirp4netns answers DNS queries on.
pub(super) const DNS_SERVER: &str = "10.0.2.3";

/// What slirp4netns expects of the device's IPv6; its own network is `fd00::/64`, with itself as `::2`.
/// Asking for it by router advertisements would take longer than the first command. In the format of
/// `ip -batch`.
const IPV6_SETUP: &str = "link set tap0 addrgenmode none\naddr add fd00::100/64 dev tap0 nodad\n\
                          route replace ::/0 via fd00::2 dev tap0 metric 512\n";

/// Namespaces that are not in use.
#[derive(Debug, Clone)]
pub(super) struct NetworkPool {
    free: Arc<Mutex<Vec<Namespace>>>,
    rules: Arc<str>,
    has_ipv6: bool,
}

/// A namespace in use; back in the pool when dropped.
#[derive(Debug)]
pub(super) struct NetworkLease {
    namespace: Option<Namespace>,
    pool: NetworkPool,
}

#[derive(Debug)]
struct Namespace {
    /// Keeps the namespace alive.
    holder: Child,
    /// Serves its tap device.
    stack: Child,
    path: PathBuf,
}

impl NetworkPool {
    /// An empty pool whose namespaces will never reach `deny`.
    pub(super) fn new(deny: &[Deny]) -> Self {
        Self { free: Arc::default(), rules: rules(deny).into(), has_ipv6: leads_outward_v6() }
    }

    /// Whether IPv6 leads outward.
    pub(super) const fn has_ipv6(&self) -> bool {
        self.has_ipv6
    }

    /// A namespace that nobody else uses.
    pub(super) fn take(&self) -> io::Result<NetworkLease> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let namespace = match free {
            Some(namespace) => namespace,
            None => Namespace::make(&self.rules, self.has_ipv6)?,
        };
        Ok(NetworkLease { namespace: Some(namespace), pool: self.clone() })
    }
}

impl NetworkLease {
    /// The path to join it by.
    pub(super) fn path(&self) -> &Path {
        // Present until drop.
        self.namespace.as_ref().map_or(Path::new("/nonexistent"), |namespace| &namespace.path)
    }
}

impl Drop for NetworkLease {
    fn drop(&mut self) {
        if let Some(mut namespace) = self.namespace.take()
            && namespace.is_alive()
        {
            self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(namespace);
        }
    }
}

impl Namespace {
    fn make(rules: &str, has_ipv6: bool) -> io::Result<Self> {
        // Says `x` when it is inside, then waits for the end of its input: ours, so it cannot
        // outlive this process.
        let mut holder = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "ip link set lo up && echo x && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = [0; 1];
        if let Some(output) = holder.stdout.as_mut() {
            output.read_exact(&mut ready)?;
        }
        let pid = holder.id();
        let mut namespace = Self {
            stack: start_stack(pid, has_ipv6)?,
            path: PathBuf::from(format!("/proc/{pid}/ns/net")),
            holder,
        };
        namespace.apply(&["nft", "-f", "-"], rules)?;
        if has_ipv6 {
            namespace.apply(&["ip", "-batch", "-"], IPV6_SETUP)?;
        }
        Ok(namespace)
    }

    /// Runs a program inside that reads what to do.
    fn apply(&mut self, program: &[&str], input: &str) -> io::Result<()> {
        let mut child = Command::new("nsenter")
            .arg(format!("--net={}", self.path.display()))
            .arg("--")
            .args(program)
            .stdin(Stdio::piped())
            .spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(input.as_bytes())?;
        }
        let (status, name) = (child.wait()?, program[0]);
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("{name}: {status}"))) }
    }

    fn is_alive(&mut self) -> bool {
        matches!((self.holder.try_wait(), self.stack.try_wait()), (Ok(None), Ok(None)))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for child in [&mut self.stack, &mut self.holder] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts slirp4netns and waits until the device is up. It ends when the other end of its exit
/// pipe closes, so it cannot outlive this process either.
fn start_stack(pid: u32, has_ipv6: bool) -> io::Result<Child> {
    use rustix::pipe::{PipeFlags, pipe_with};
    let (ready, ready_inner) = pipe_with(PipeFlags::CLOEXEC)?;
    let name = |fd: &dyn AsRawFd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
    // The shell opens the pipe by its name, so that no descriptor has to be inherited.
    let script = "exec slirp4netns --configure --mtu=65520 --disable-host-loopback \
                  --ready-fd=3 --exit-fd=0 $2 \"$0\" tap0 3>\"$1\"";
    let ipv6 = if has_ipv6 { "--enable-ipv6" } else { "" };
    let child = Command::new("sh")
        .args(["-c", script, &pid.to_string(), &name(&ready_inner), ipv6])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    wait_until_ready(&ready)?;
    drop(ready_inner);
    Ok(child)
}

fn wait_until_ready(ready: &rustix::fd::OwnedFd) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    let mut fds = [PollFd::new(ready, PollFlags::IN)];
    let count = poll(&mut fds, Some(&limit))?;
    if count == 0 {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "slirp4netns did not become ready"));
    }
    Ok(())
}

/// Whether IPv6 leads anywhere from this thread's network.
fn leads_outward_v6() -> bool {
    has_default_route(
        &std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default(),
    )
}

/// Whether the kernel's table of IPv6 routes has one for everything else, over a real device: the
/// loopback's refuses what has no route.
fn has_default_route(table: &str) -> bool {
    let zeros = "0".repeat(32);
    table.lines().any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_default = columns.starts_with(&[zeros.as_str(), "00"]);
        is_default && columns.last().is_some_and(|device| *device != "lo")
    })
}

/// The host's own addresses: its services listen there as well as on loopback. Those of this
/// thread's network: a process may have several.
fn own_addresses() -> Vec<String> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut found = local_v4(&read("/proc/thread-self/net/fib_trie"));
    found.extend(read("/proc/thread-self/net/if_inet6").lines().filter_map(|line| {
        let digits = line.split_whitespace().next().filter(|digits| digits.len() == 32)?;
        Some(std::net::Ipv6Addr::from(u128::from_str_radix(digits, 16).ok()?).to_string())
    }));
    found
}

/// Addresses that the routing table marks `host LOCAL`, below the line that names them.
fn local_v4(table: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut address: Option<std::net::Ipv4Addr> = None;
    for line in table.lines() {
        if let Some(leaf) = line.trim_start().strip_prefix("|-- ") {
            address = leaf.trim().parse().ok();
        } else if line.contains("host LOCAL") {
            found.extend(address.map(|address| address.to_string()));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn rules(deny: &[Deny]) -> String {
    // Neighbours are found by link-local addresses; there is none but the stack. What is dropped is
    // this machine and the link in all spellings (the last two ranges are 6to4 and what a NAT64 would make of
    // them), and the metadata of the clouds that have an IPv6 address for it: Amazon's, Google's.
    let mut text = String::from(
        "table inet slipway {\n  chain output {\n    type filter hook output priority 0; policy accept;\n    \
         oif \"lo\" accept\n    \
         icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept\n    \
         ip daddr { 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16 } drop\n    \
         ip6 daddr { ::/127, fe80::/10, ::ffff:0:0/96, fd00:ec2::254, fd20:ce::254, 2002::/16, \
         64:ff9b::/104, 64:ff9b::7f00:0/104, 64:ff9b::a9fe:0/112 } drop\n",
    );
    let own = own_addresses();
    let own: Vec<Deny> = own.iter().filter_map(|text| text.parse().ok()).map(Deny::host).collect();
    for entry in own.iter().chain(deny) {
        text.push_str(&entry.rules());
        text.extend(entry.through_nat64().map(|entry| entry.rules()));
    }
    text.push_str("  }\n}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_drop_metadata_and_what_the_operator_lists() {
        let rules = rules(&["10.1.0.0/16", "fd00::/8"].map(|text| text.parse().unwrap()));
        assert!(rules.contains("169.254.0.0/16"));
        assert!(rules.contains("ip daddr 10.1.0.0/16 drop"));
        assert!(rules.contains("ip6 daddr fd00::/8 drop"));
    }

    #[test]
    fn a_default_route_over_a_device_leads_outward() {
        let line = |to: &str, bits: &str, device: &str| {
            let (zeros, rest) = ("0".repeat(32), "00000400 00000001 00000000 00000003");
            format!("{to} {bits} {zeros} 00 {zeros} {rest} {device:>8}\n")
        };
        let (all, one) = ("0".repeat(32), "fd120000000000000000000000000000");
        let others = line(one, "40", "eth0") + &line(&all, "00", "lo");
        assert!(!has_default_route(&others) && !has_default_route(""));
        assert!(has_default_route(&(others + &line(&all, "00", "eth0"))));
    }

    #[test]
    fn own_addresses_are_read_from_the_routing_table() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
                     \x20    |-- 127.0.0.1\n              /32 host LOCAL\n\
                     \x20    |-- 192.0.2.2\n           /24 link UNICAST\n           /32 host LOCAL\n\
                     \x20    |-- 192.0.2.255\n           /32 link BROADCAST\n";
        assert_eq!(local_v4(table), ["127.0.0.1", "192.0.2.2"]);
        assert!(own_addresses().contains(&"127.0.0.1".to_owned()));
    }

    #[test]
    fn a_namespace_is_used_again_and_never_by_two() {
        let pool = NetworkPool::new(&[]);
        let first = pool.take().unwrap();
        let second = pool.take().unwrap();
        assert_ne!(first.path(), second.path());
        let path = first.path().to_owned();
        drop(first);
        assert_eq!(pool.take().unwrap().path(), path);
    }
}
