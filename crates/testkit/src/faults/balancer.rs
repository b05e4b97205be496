//! One address before several servers, and a cable that can be pulled.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::listener::{Listener, Open};

/// How often each server is asked whether it works, and how long it has for an answer.
const PROBE_EVERY: Duration = Duration::from_millis(250);
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// How often a pulled cable is looked at.
const CABLE_EVERY: Duration = Duration::from_millis(20);

/// A balancer of TCP connections that knows HTTP well enough to ask whether a server is healthy. A
/// connection goes to the next server that is. It ends with this value.
#[derive(Debug)]
pub struct Balancer {
    listener: Listener,
    shared: Arc<Shared>,
    probing: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    servers: Mutex<Vec<Server>>,
    next: AtomicUsize,
    is_cut: AtomicBool,
    is_ending: AtomicBool,
}

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    is_healthy: bool,
    open: Arc<Open>,
}

impl Balancer {
    /// Stands before servers that answer `GET probe`; without a path each is taken to work.
    pub fn start(servers: &[SocketAddr], probe: Option<&str>) -> io::Result<Self> {
        let server = |address: &SocketAddr| Server {
            address: *address,
            is_healthy: true,
            open: Arc::default(),
        };
        let shared = Arc::new(Shared {
            servers: Mutex::new(servers.iter().map(server).collect()),
            next: AtomicUsize::new(0),
            is_cut: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
        });
        let all = Arc::clone(&shared);
        let listener =
            Listener::start(move |number, socket, open| serve(number, socket, open, &all))?;
        let probing = probe.map(|path| {
            let (all, path) = (Arc::clone(&shared), path.to_owned());
            std::thread::spawn(move || probe_all(&all, &path))
        });
        Ok(Self { listener, shared, probing })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address
    }

    /// Pulls the cable: connections stay open and nothing passes, in neither direction.
    pub fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::SeqCst);
    }

    /// Puts the cable back: what was sent meanwhile arrives.
    pub fn heal(&self) {
        self.shared.is_cut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.shared.is_ending.store(true, Ordering::SeqCst);
        if let Some(probing) = self.probing.take() {
            let _ = probing.join();
        }
    }
}

fn serve(number: u64, client: TcpStream, open: &Open, shared: &Shared) -> io::Result<()> {
    wait_for_cable(shared);
    let first = shared.next.fetch_add(1, Ordering::SeqCst);
    let servers: Vec<(SocketAddr, bool, Arc<Open>)> = {
        let servers = shared.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let server =
            |server: &Server| (server.address, server.is_healthy, Arc::clone(&server.open));
        servers.iter().map(server).collect()
    };
    let count = servers.len().max(1);
    for (address, is_healthy, of_server) in servers.iter().cycle().skip(first % count).take(count) {
        if !is_healthy {
            continue;
        }
        let Ok(server) = TcpStream::connect_timeout(address, PROBE_LIMIT) else { continue };
        server.set_nodelay(true)?;
        open.add(number, &server)?;
        // Both ends are closed when the server is given up.
        of_server.add(number, &server)?;
        of_server.add(number, &client)?;
        std::thread::scope(|scope| {
            scope.spawn(|| pass(&client, &server, shared));
            pass(&server, &client, shared);
        });
        of_server.remove(number);
        return Ok(());
    }
    client.shutdown(Shutdown::Both)
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, shared: &Shared) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut buffer) {
        wait_for_cable(shared);
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    wait_for_cable(shared);
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

fn wait_for_cable(shared: &Shared) {
    while shared.is_cut.load(Ordering::SeqCst) && !shared.is_ending.load(Ordering::SeqCst) {
        std::thread::sleep(CABLE_EVERY);
    }
}

fn probe_all(shared: &Shared, path: &str) {
    while !shared.is_ending.load(Ordering::SeqCst) {
        let addresses: Vec<SocketAddr> = {
            let servers = shared.servers.lock().unwrap_or_else(PoisonError::into_inner);
            servers.iter().map(|server| server.address).collect()
        };
        for (position, address) in addresses.iter().enumerate() {
            let is_healthy = probe(*address, path).is_ok();
            let mut servers = shared.servers.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(server) = servers.get_mut(position) else { continue };
            if server.is_healthy && !is_healthy {
                // A server that hangs keeps nobody waiting.
                server.open.close();
            }
            server.is_healthy = is_healthy;
        }
        std::thread::sleep(PROBE_EVERY);
    }
}

fn probe(address: SocketAddr, path: &str) -> io::Result<()> {
    let mut socket = TcpStream::connect_timeout(&address, PROBE_LIMIT)?;
    socket.set_read_timeout(Some(PROBE_LIMIT))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut start = [0; 12];
    socket.read_exact(&mut start)?;
    if start.ends_with(b" 200") { Ok(()) } else { Err(io::Error::other("it is not well")) }
}
