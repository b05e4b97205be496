//! A listener with a thread a connection, all of which end with it.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// The sockets that are open, so that they can be closed from outside.
#[derive(Debug, Default)]
pub(super) struct Open {
    sockets: Mutex<HashMap<u64, Vec<TcpStream>>>,
    next: AtomicU64,
}

impl Open {
    /// Remembers a socket under the number of its connection.
    pub(super) fn add(&self, connection: u64, socket: &TcpStream) -> std::io::Result<()> {
        let socket = socket.try_clone()?;
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.entry(connection).or_default().push(socket);
        Ok(())
    }

    /// Closes all of them.
    pub(super) fn close(&self) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        for socket in sockets.drain().flat_map(|(_, sockets)| sockets) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Forgets the sockets of a connection that has ended.
    pub(super) fn remove(&self, connection: u64) {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).remove(&connection);
    }
}

/// A listener.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    pub(super) open: Arc<Open>,
    stopping: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens at a free port and serves each connection on a thread of its own.
    pub(super) fn start(
        serve: impl Fn(u64, TcpStream, &Open) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (open, stopping) = (Arc::new(Open::default()), Arc::new(AtomicBool::new(false)));
        let serve = Arc::new(serve);
        let (all, stop) = (Arc::clone(&open), Arc::clone(&stopping));
        let accepting = std::thread::spawn(move || {
            for socket in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(socket) = socket else { continue };
                let number = all.next.fetch_add(1, Ordering::SeqCst);
                let (serve, all) = (Arc::clone(&serve), Arc::clone(&all));
                std::thread::spawn(move || {
                    let _ = socket.set_nodelay(true);
                    if all.add(number, &socket).is_ok() {
                        // A connection that breaks is what this is for.
                        let _ = serve(number, socket, &all);
                    }
                    all.remove(number);
                });
            }
        });
        Ok(Self { address, open, stopping, accepting: Some(accepting) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.open.close();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.open.close();
    }
}
