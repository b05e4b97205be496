//! What a RUN reaches, tried with listeners in networks of the test's own: one for the worker, one
//! for all that is outside.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::plan::Network;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use worker::runtime::{DefaultNetwork, RuntimeConfig};

use crate::sandbox::{Ran, Sandbox};

/// A network namespace; it ends with this value.
struct Namespace {
    holder: Child,
}

impl Namespace {
    fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "echo x && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
        Self { holder }
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// Runs lines of `ip -batch`.
    fn ip(&self, lines: &str) {
        let mut ip = Command::new("nsenter")
            .arg(format!("--net={}", self.path()))
            .args(["--", "ip", "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        ip.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(ip.wait().unwrap().success(), "{lines}");
    }

    /// Runs something on a thread that is in the namespace, as are its children.
    fn within<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = File::open(self.path()).unwrap();
        let thread = std::thread::spawn(move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).unwrap();
            body()
        });
        thread.join().unwrap()
    }

    fn listen(&self, address: &str) -> TcpListener {
        let address: SocketAddr = address.parse().unwrap();
        let listener = self.within(move || TcpListener::bind(address).unwrap());
        listener.set_nonblocking(true).unwrap();
        listener
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The worker's network and the outside, joined.
fn networks() -> (Namespace, Namespace) {
    let (worker, outside) = (Namespace::new(), Namespace::new());
    worker.ip(&format!(
        "link set lo up\nlink add inner type veth peer name outer netns {}\n\
         addr add 198.51.100.1/24 dev inner\naddr add fd12::1/64 dev inner nodad\n\
         link set inner up\n",
        outside.holder.id()
    ));
    outside.ip(
        "link set lo up\naddr add 198.51.100.2/24 dev outer\naddr add 198.51.100.3/24 dev outer\n\
         addr add 169.254.169.254/32 dev outer\naddr add fd12::2/64 dev outer nodad\n\
         addr add fd99::5/128 dev outer nodad\naddr add fd00:ec2::254/128 dev outer nodad\n\
         addr add 64:ff9b::c633:6403/128 dev outer nodad\nlink set outer up\n",
    );
    worker.ip("route add 169.254.169.254/32 dev inner\nroute add default via 198.51.100.2\n");
    worker.ip("route add ::/0 via fd12::2\n");
    // Until neighbours know each other the first packets are lost.
    worker.within(|| {
        let nobody: SocketAddr = "[fd99::5]:1".parse().unwrap();
        let limit = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let tried = TcpStream::connect_timeout(&nobody, Duration::from_secs(1));
            if tried.unwrap_err().kind() == std::io::ErrorKind::ConnectionRefused {
                break;
            }
            assert!(std::time::Instant::now() < limit, "the outside cannot be reached");
        }
    });
    (worker, outside)
}

/// Connects from inside a RUN.
async fn connect(sandbox: &mut Sandbox, network: Network, address: &str) -> Ran {
    let address: SocketAddr = address.parse().unwrap();
    let (ip, port) = (address.ip(), address.port());
    let script = format!("timeout 1 bash -c ': > /dev/tcp/{ip}/{port}'; exit $?");
    sandbox.sh_with(&script, |request| request.op.network = network).await
}

fn sandbox(config: RuntimeConfig) -> Sandbox {
    let sandbox = Sandbox::new(&config);
    sandbox.add_program("/bin/bash");
    sandbox.add_program("/usr/bin/perl");
    sandbox
}

/// Runs asynchronous code on this very thread and its children.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

#[test]
fn the_internet_is_reached_and_the_farm_the_host_and_its_cloud_are_not() {
    let (worker, outside) = networks();
    let open = outside.listen("198.51.100.2:8080");
    let reachable = ["198.51.100.2:8080", "198.51.100.3:8080", "[fd99::5]:8080", "[fd12::2]:9090"];
    let others = [
        outside.listen("198.51.100.3:8080"),
        outside.listen("[fd99::5]:8080"),
        outside.listen("[fd12::2]:9090"),
        outside.listen("[fd00:ec2::254]:80"),
        outside.listen("[64:ff9b::c633:6403]:6379"),
        outside.listen("198.51.100.2:5432"),
        outside.listen("198.51.100.3:6379"),
        outside.listen("169.254.169.254:80"),
        outside.listen("[fd12::2]:8080"),
        worker.listen("127.0.0.1:7000"),
        worker.listen("198.51.100.1:7000"),
        worker.listen("[::1]:7000"),
        worker.listen("[fd12::1]:7000"),
    ];
    let out_of_reach = [
        "198.51.100.2:5432",
        "198.51.100.3:6379",
        "169.254.169.254:80",
        "[fd12::2]:8080",
        "[fd00:ec2::254]:80",
        "[64:ff9b::c633:6403]:6379",
        "127.0.0.1:7000",
        "10.0.2.2:7000",
        "[fd00::2]:7000",
        "198.51.100.1:7000",
        "[::1]:7000",
        "[fd12::1]:7000",
        "[::ffff:198.51.100.1]:7000",
        "0.0.0.0:7000",
    ];
    worker.within(move || {
        block_on(async {
            let deny = ["198.51.100.2:5432", "198.51.100.3:6379", "[fd12::2]:8080"];
            let mut sandbox = sandbox(RuntimeConfig {
                network: DefaultNetwork::Slirp,
                deny_networks: deny.map(str::to_owned).to_vec(),
                ..RuntimeConfig::default()
            });
            for address in reachable {
                let ran = connect(&mut sandbox, Network::Default, address).await;
                assert_eq!(ran.exit.code, 0, "{address}: {ran:?}");
                let ran = connect(&mut sandbox, Network::None, address).await;
                assert_ne!(ran.exit.code, 0, "{address}: {ran:?}");
            }
            for address in out_of_reach {
                let ran = connect(&mut sandbox, Network::Default, address).await;
                assert_ne!(ran.exit.code, 0, "{address}: {ran:?}");
            }
            // The rules are not the command's to change.
            let ran = sandbox
                .sh_with("ip link set lo down || ip route flush table main", |request| {
                    request.op.network = Network::Default;
                })
                .await;
            assert_ne!(ran.exit.code, 0, "{ran:?}");
        });
    });
    assert!(open.accept().is_ok());
    let (reached, rest) = others.split_at(3);
    for listener in reached {
        assert!(listener.accept().is_ok(), "not reached: {:?}", listener.local_addr());
    }
    for listener in rest {
        assert!(listener.accept().is_err(), "reached {:?}", listener.local_addr());
    }
}

#[test]
fn the_hosts_network_is_reached_only_where_it_is_allowed() {
    let (worker, _outside) = networks();
    let listener = worker.listen("127.0.0.1:7000");
    worker.within(move || {
        block_on(async {
            let mut sandbox = sandbox(RuntimeConfig {
                network: DefaultNetwork::Isolated,
                allow_host_network: true,
                ..RuntimeConfig::default()
            });
            let ran = connect(&mut sandbox, Network::Host, "127.0.0.1:7000").await;
            assert_eq!(ran.exit.code, 0, "{ran:?}");
        });
    });
    assert!(listener.accept().is_ok());
}

/// Connects to a listener of its own over IPv6, and counts its default routes.
const LOOPBACK: &str = "my $to = pack('S n N x15 C L', 10, 7000, 0, 1, 0); \
    socket(L, 10, 1, 6) && bind(L, $to) && listen(L, 1) or die \"$!\"; \
    socket(C, 10, 1, 6) && connect(C, $to) && accept(S, L) or die \"$!\"; \
    open(R, '<', '/proc/net/ipv6_route'); my @out = grep { /^0{32} 00 / && !/ lo$/ } <R>; \
    print 'met, ', @out ? 'and outward' : 'and nothing else'";

#[test]
fn the_loopback_has_ipv6_everywhere_and_leads_outward_only_where_the_host_does() {
    let check = |leads_outward: bool| {
        let (worker, _outside) = networks();
        if !leads_outward {
            worker.ip("route del ::/0 via fd12::2\n");
        }
        worker.within(move || {
            block_on(async {
                let config =
                    RuntimeConfig { network: DefaultNetwork::Slirp, ..RuntimeConfig::default() };
                let mut sandbox = sandbox(config);
                assert_eq!(sandbox.runtime.has_ipv6(), leads_outward);
                for (network, outward) in
                    [(Network::Default, leads_outward), (Network::None, false)]
                {
                    let step = sandbox.step();
                    let mut request = sandbox.request(&step, &["/usr/bin/perl", "-e", LOOPBACK]);
                    request.op.network = network;
                    let ran = crate::sandbox::run(&sandbox.runtime, request).await.unwrap();
                    let expected =
                        if outward { "met, and outward" } else { "met, and nothing else" };
                    assert_eq!(ran.stdout, expected, "{ran:?}");
                }
            });
        });
    };
    check(true);
    check(false);
}

#[test]
fn names_are_looked_up_where_the_host_looks_them_up() {
    let resolver = std::fs::read_to_string("/etc/resolv.conf").unwrap();
    let server: IpAddr = resolver
        .lines()
        .find_map(|line| line.strip_prefix("nameserver ")?.trim().parse().ok())
        .unwrap_or_else(|| IpAddr::from([127, 0, 0, 1]));
    let (worker, outside) = networks();
    // The server of the host's resolver stands in the test's own network.
    let place = if server.is_loopback() { &worker } else { &outside };
    if !server.is_loopback() {
        let bits = if server.is_ipv4() { 32 } else { 128 };
        place.ip(&format!("addr add {server}/{bits} dev lo\n"));
    }
    let socket = place.within(move || UdpSocket::bind((server, 53)).unwrap());
    let answering = std::thread::spawn(move || {
        let mut buffer = [0; 512];
        let (count, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"a question that is long enough");
        socket.send_to(b"the answer", from).unwrap();
    });
    let program = "open(F, '<', '/etc/resolv.conf'); my ($server) = <F> =~ /nameserver (\\S+)/; \
                   socket(S, 2, 2, 17) or die; \
                   my $to = pack('S n C4 x8', 2, 53, split(/\\./, $server)); \
                   send(S, 'a question that is long enough', 0, $to) or die \"$!\"; \
                   alarm 20; recv(S, my $answer, 512, 0); print $answer";
    worker.within(move || {
        block_on(async {
            let mut sandbox = sandbox(RuntimeConfig {
                network: DefaultNetwork::Slirp,
                ..RuntimeConfig::default()
            });
            let step = sandbox.step();
            let mut request = sandbox.request(&step, &["/usr/bin/perl", "-e", program]);
            request.op.network = Network::Default;
            let ran = crate::sandbox::run(&sandbox.runtime, request).await.unwrap();
            assert_eq!(ran.stdout, "the answer", "{ran:?}");
        });
    });
    answering.join().unwrap();
}
