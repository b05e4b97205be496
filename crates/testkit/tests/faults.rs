//! What the proxy and the balancer do to what passes.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use testkit::{Balancer, Fault, FaultProxy, Rule};

/// A server that answers each request with 1,000 bytes and the request's path and body in a header.
struct Echo {
    address: SocketAddr,
    requests: Arc<AtomicU32>,
}

impl Echo {
    fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Arc::new(AtomicU32::new(0)));
        let count = Arc::clone(&requests);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let mut socket = socket.unwrap();
                    let mut request = Vec::new();
                    let mut buffer = [0; 4096];
                    loop {
                        let count = socket.read(&mut buffer).unwrap_or(0);
                        request.extend_from_slice(&buffer[..count]);
                        let text = String::from_utf8_lossy(&request).into_owned();
                        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                            let length =
                                head.lines().find_map(|l| l.strip_prefix("Content-Length: "));
                            body.len() >= length.map_or(0, |text| text.parse().unwrap())
                        });
                        if whole || count == 0 {
                            break;
                        }
                    }
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let line = text.lines().next().unwrap_or("").to_owned();
                    let body = text.split("\r\n\r\n").nth(1).unwrap_or("").to_owned();
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nX-Server: {name}\r\nX-Line: {line}\r\nX-Body: {body}\r\n\
                         Content-Length: 1000\r\n\r\n"
                    );
                    let _ = socket.write_all(head.as_bytes());
                    let _ = socket.write_all(&[b'a'; 1000]);
                });
            }
        });
        Self { address, requests }
    }
}

/// Head and body of an answer; nothing where the connection broke before one came.
fn ask(host: &str, request: &str) -> Option<(String, Vec<u8>)> {
    let mut socket = TcpStream::connect(host).ok()?;
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let read = socket.read_to_end(&mut answer);
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let body = answer.split_off(end + 4);
    read.ok()?;
    Some((String::from_utf8(answer).unwrap(), body))
}

fn get(host: &str, path: &str) -> Option<(String, Vec<u8>)> {
    ask(host, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
}

fn proxy(rules: impl IntoIterator<Item = Rule>) -> (Echo, FaultProxy) {
    let server = Echo::start("one");
    let proxy = FaultProxy::start(&server.address.to_string(), 1).unwrap();
    for rule in rules {
        proxy.add(rule);
    }
    (server, proxy)
}

#[test]
fn without_rules_everything_passes_unchanged() {
    let (_server, proxy) = proxy([]);
    let request = "PUT /a?b=c HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello";
    let (head, body) = ask(&proxy.host(), request).unwrap();
    assert!(head.contains("X-Line: PUT /a?b=c HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("X-Body: hello\r\n"), "{head}");
    assert_eq!(body, [b'a'; 1000]);
    assert_eq!(proxy.met(), 0);
}

#[test]
fn a_rule_meets_the_requests_that_it_names_and_no_others() {
    let fault = Fault::Status { status: 429, headers: vec![("Retry-After".into(), "7".into())] };
    let (server, proxy) =
        proxy([Rule::always(fault).method("GET").path("/blobs/").after(1).times(2)]);
    let status = |path: &str| {
        let (head, _) = get(&proxy.host(), path).unwrap();
        head.lines().next().unwrap().split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    let seen: Vec<u16> = (0..4).map(|_| status("/v2/blobs/x")).collect();
    assert_eq!((seen, status("/v2/")), (vec![200, 429, 429, 200], 200));
    assert_eq!((proxy.met(), server.requests.load(Ordering::SeqCst)), (2, 3));
    let put = "PUT /blobs/ HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    assert!(ask(&proxy.host(), put).unwrap().0.starts_with("HTTP/1.1 200"));
}

#[test]
fn one_in_so_many_comes_again_with_the_seed() {
    let run = |seed| {
        let server = Echo::start("one");
        let proxy = FaultProxy::start(&server.address.to_string(), seed).unwrap();
        proxy.add(Rule::always(Fault::Status { status: 500, headers: Vec::new() }).one_in(3));
        let is_bad = |_| get(&proxy.host(), "/").unwrap().0.starts_with("HTTP/1.1 500");
        (0..30).map(is_bad).collect::<Vec<bool>>()
    };
    let first = run(5);
    assert_eq!(first, run(5));
    assert!(first.contains(&true) && first.contains(&false));
}

#[test]
fn bodies_are_cut_shortened_and_spoiled() {
    let body = |fault| {
        let (_server, proxy) = proxy([Rule::always(fault)]);
        get(&proxy.host(), "/").map(|(head, body)| (head.contains("Content-Length: 1000"), body))
    };
    // The head of a cut answer tells that something is missing, that of a short one does not.
    assert_eq!(body(Fault::Cut { at: 10 }), Some((true, vec![b'a'; 10])));
    assert_eq!(body(Fault::Truncate { at: 10 }), Some((false, vec![b'a'; 10])));
    let (_, spoiled) = body(Fault::Corrupt { at: 500 }).unwrap();
    let wrong: Vec<usize> = (0..1000).filter(|at| spoiled[*at] != b'a').collect();
    assert_eq!((spoiled.len(), wrong), (1000, vec![500]));
}

#[test]
fn connections_break_before_and_after_the_server_has_acted() {
    for (fault, seen) in [(Fault::Reset, 0), (Fault::LoseAnswer, 1)] {
        let (server, proxy) = proxy([Rule::always(fault)]);
        assert_eq!(get(&proxy.host(), "/"), None);
        assert_eq!(server.requests.load(Ordering::SeqCst), seen);
        proxy.clear();
        assert!(get(&proxy.host(), "/").is_some());
    }
}

#[test]
fn slow_servers_are_slow() {
    let start = Instant::now();
    let (_server, slow) = proxy([Rule::always(Fault::Delay(Duration::from_millis(300)))]);
    assert!(get(&slow.host(), "/").is_some());
    assert!(start.elapsed() >= Duration::from_millis(300));
    let start = Instant::now();
    let (_server, slow) = proxy([Rule::always(Fault::Throttle { bytes_per_sec: 2000 })]);
    assert_eq!(get(&slow.host(), "/").unwrap().1.len(), 1000);
    assert!(start.elapsed() >= Duration::from_millis(300));
}

fn server_of(host: SocketAddr) -> Option<String> {
    let (head, _) = get(&host.to_string(), "/")?;
    Some(head.lines().find_map(|line| line.strip_prefix("X-Server: "))?.to_owned())
}

#[test]
fn a_balancer_takes_turns_and_passes_over_what_is_gone() {
    let (one, two) = (Echo::start("one"), Echo::start("two"));
    let balancer = Balancer::start(&[one.address, two.address], None).unwrap();
    let mut seen: Vec<_> = (0..2).map(|_| server_of(balancer.address()).unwrap()).collect();
    seen.sort();
    assert_eq!(seen, ["one", "two"]);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let balancer = Balancer::start(&[gone, two.address], None).unwrap();
    assert!((0..4).all(|_| server_of(balancer.address()).as_deref() == Some("two")));
}

#[test]
fn a_balancer_leaves_a_server_alone_that_hangs_and_comes_back_to_it() {
    // Accepts, and says nothing.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let two = Echo::start("two");
    let balancer = Balancer::start(&[hangs.local_addr().unwrap(), two.address], Some("/")).unwrap();
    let settled = testkit::wait_for("the probe", Duration::from_secs(20), || {
        // A connection that went to the one that hangs is closed.
        (0..4).all(|_| server_of(balancer.address()).as_deref() == Some("two")).then_some(())
    });
    settled.unwrap();
    let lives = std::thread::spawn(move || {
        for socket in hangs.incoming() {
            let mut socket = socket.unwrap();
            let _ = socket.read(&mut [0; 1000]);
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nX-Server: one\r\n\r\n");
        }
    });
    testkit::wait_for("the other one", Duration::from_secs(20), || {
        (server_of(balancer.address()).as_deref() == Some("one")).then_some(())
    })
    .unwrap();
    assert!(!lives.is_finished());
}

#[test]
fn a_pulled_cable_breaks_nothing_and_passes_nothing() {
    let one = Echo::start("one");
    let balancer = Balancer::start(&[one.address], None).unwrap();
    balancer.cut();
    let address = balancer.address();
    let asking = std::thread::spawn(move || server_of(address));
    std::thread::sleep(Duration::from_millis(200));
    assert!(!asking.is_finished());
    balancer.heal();
    assert_eq!(asking.join().unwrap().as_deref(), Some("one"));
}
