//! A proxy before one HTTP server. Each connection serves one request: the heads say so to both
//! sides, so that a rule meets every request and a fault touches no other one.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Dice;
use super::listener::{Listener, Open};
use super::rule::{Fault, Rule, Rules};

/// Longest head of a request or an answer.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long a request whose answer is known is still read: whoever sends has to see the answer.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// Pieces in which a slow body comes, a second.
const PIECES_PER_SEC: usize = 10;

/// The proxy. It ends with this value.
#[derive(Debug)]
pub struct FaultProxy {
    listener: Listener,
    rules: Arc<Mutex<Rules>>,
}

impl FaultProxy {
    /// Stands before the server at `upstream` (`HOST:PORT`).
    pub fn start(upstream: &str, seed: u64) -> io::Result<Self> {
        let rules = Rules { rules: Vec::new(), dice: Dice::new(seed), met: 0 };
        let rules = Arc::new(Mutex::new(rules));
        let (upstream, all) = (upstream.to_owned(), Arc::clone(&rules));
        let listener = Listener::start(move |number, socket, open| {
            serve(number, socket, open, &upstream, &all)
        })?;
        Ok(Self { listener, rules })
    }

    /// Where it listens.
    pub fn address(&self) -> std::net::SocketAddr {
        self.listener.address
    }

    /// Where it listens: `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.listener.address.to_string()
    }

    /// Adds a rule behind those that are there.
    pub fn add(&self, rule: Rule) {
        self.lock().rules.push(rule);
    }

    /// Everything passes again.
    pub fn clear(&self) {
        self.lock().rules.clear();
    }

    /// How many requests met a fault so far.
    pub fn met(&self) -> u64 {
        self.lock().met
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(
    number: u64,
    mut client: TcpStream,
    open: &Open,
    upstream: &str,
    rules: &Mutex<Rules>,
) -> io::Result<()> {
    let Some((head, rest)) = read_head(&mut client)? else { return Ok(()) };
    let mut words = head.lines().next().unwrap_or("").split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let fault = rules.lock().unwrap_or_else(PoisonError::into_inner).fault(method, path);
    match &fault {
        Some(Fault::Reset) => return reset(&client),
        Some(Fault::Status { status, headers }) => return answer(client, *status, headers),
        Some(Fault::Delay(delay)) => std::thread::sleep(*delay),
        _ => {}
    }
    let Ok(mut server) = TcpStream::connect(upstream) else { return reset(&client) };
    server.set_nodelay(true)?;
    open.add(number, &server)?;
    server.write_all(one_request(&head, None).as_bytes())?;
    server.write_all(&rest)?;
    let (mut body, mut up) = (client.try_clone()?, server.try_clone()?);
    let sending = std::thread::spawn(move || io::copy(&mut body, &mut up));
    let result = give_answer(&mut server, &mut client, fault.as_ref());
    // Both directions end: whoever still sends has got an answer, or none will come.
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Write);
    let _ = client.set_read_timeout(Some(DRAIN_LIMIT));
    let _ = io::copy(&mut client, &mut io::sink());
    let _ = client.shutdown(Shutdown::Both);
    let _ = sending.join();
    result
}

/// Reads up to the empty line; what was read behind it is returned too. Nothing when the connection
/// ends before.
fn read_head(socket: &mut TcpStream) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let count = socket.read(&mut buffer)?;
        if count == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&buffer[..count]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok(Some((String::from_utf8_lossy(&bytes).into_owned(), rest)));
        }
        if bytes.len() > MAX_HEAD_BYTES {
            return Err(io::Error::other("a head has no end"));
        }
    }
}

/// The head with the note that the connection ends after this, and with another length if there is
/// to be one.
fn one_request(head: &str, length: Option<usize>) -> String {
    let mut text = String::new();
    for line in head.trim_end().split("\r\n") {
        let name = line.split(':').next().unwrap_or("").to_ascii_lowercase();
        match (name.as_str(), length) {
            ("connection" | "keep-alive", _) => {}
            ("content-length", Some(length)) => {
                text.push_str(&format!("Content-Length: {length}\r\n"));
            }
            _ => {
                text.push_str(line);
                text.push_str("\r\n");
            }
        }
    }
    text.push_str("Connection: close\r\n\r\n");
    text
}

fn give_answer(
    server: &mut TcpStream,
    client: &mut TcpStream,
    fault: Option<&Fault>,
) -> io::Result<()> {
    let (head, rest) = loop {
        let Some((head, rest)) = read_head(server)? else { return reset(client) };
        if head.split(' ').nth(1).is_some_and(|status| status.starts_with('1')) {
            client.write_all(head.as_bytes())?;
            continue;
        }
        break (head, rest);
    };
    let length = match fault {
        Some(Fault::LoseAnswer) => return reset(client),
        Some(Fault::Truncate { at }) => Some(*at),
        _ => None,
    };
    client.write_all(one_request(&head, length).as_bytes())?;
    let mut body = Box::new(rest.as_slice().chain(server));
    match fault {
        Some(Fault::Cut { at } | Fault::Truncate { at }) => {
            io::copy(&mut body.take(*at as u64), client)?;
        }
        Some(Fault::Corrupt { at }) => {
            io::copy(&mut body.by_ref().take(*at as u64), client)?;
            let mut byte = [0];
            if body.read(&mut byte)? == 1 {
                client.write_all(&[byte[0] ^ 1])?;
                io::copy(&mut body, client)?;
            }
        }
        Some(Fault::Throttle { bytes_per_sec }) => {
            let mut piece = vec![0; (bytes_per_sec / PIECES_PER_SEC).max(1)];
            loop {
                let count = body.read(&mut piece)?;
                if count == 0 {
                    break;
                }
                client.write_all(&piece[..count])?;
                std::thread::sleep(
                    Duration::from_secs(1) / u32::try_from(PIECES_PER_SEC).unwrap_or(1),
                );
            }
        }
        _ => {
            io::copy(&mut body, client)?;
        }
    }
    Ok(())
}

fn answer(mut client: TcpStream, status: u16, headers: &[(String, String)]) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} Fault\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("Content-Length: 0\r\nConnection: close\r\n\r\n");
    client.write_all(head.as_bytes())?;
    client.shutdown(Shutdown::Write)?;
    client.set_read_timeout(Some(DRAIN_LIMIT))?;
    io::copy(&mut client, &mut io::sink())?;
    Ok(())
}

/// Ends a connection as a machine does that has lost it.
fn reset(socket: &TcpStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO))?;
    socket.shutdown(Shutdown::Both)
}
