//! A socket that looks like an agent and passes messages on.

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::message::{Message, read, write};

/// Connections of one socket at once; more wait to be taken up.
const MAX_CONNECTIONS: usize = 16;
/// Longest path of a socket (unix(7)), without the zero at its end.
const MAX_PATH_BYTES: usize = 107;

/// Where the messages of a socket go.
pub trait Relay: Send + Sync + 'static {
    /// The answer to a request. Requests of one connection come one after the other.
    fn ask(&self, connection: Uuid, request: Message) -> impl Future<Output = Message> + Send;

    /// A connection has ended.
    fn closed(&self, connection: Uuid) -> impl Future<Output = ()> + Send;
}

/// A listening socket. It is gone, and its connections with it, when this is dropped.
#[derive(Debug)]
pub struct AgentSocket {
    path: PathBuf,
    _accepting: AbortOnDropHandle<()>,
}

impl AgentSocket {
    /// Listens at a path that does not exist. Whoever may write to the socket may use it: the caller
    /// sees to owner and mode, and until then to the directory.
    pub fn listen<R: Relay>(path: &Path, relay: Arc<R>) -> io::Result<Self> {
        let listener = if path.as_os_str().len() <= MAX_PATH_BYTES {
            UnixListener::bind(path)?
        } else {
            bind_inside(path)?
        };
        let accepting = tokio::spawn(accept(listener, relay));
        Ok(Self { path: path.to_owned(), _accepting: AbortOnDropHandle::new(accepting) })
    }

    /// Whether programs can connect by its path: one that is too long has no room in an address.
    pub fn is_reachable(&self) -> bool {
        self.path.as_os_str().len() <= MAX_PATH_BYTES
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        // Its directory may be gone already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// By a short name of the directory: an address has no room for a long path.
fn bind_inside(path: &Path) -> io::Result<UnixListener> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = std::fs::File::open(parent)?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
    UnixListener::bind(short.join(name))
}

async fn accept<R: Relay>(listener: UnixListener, relay: Arc<R>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Out of files: those of others may be closed soon.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let relay = Arc::clone(&relay);
        connections.spawn(async move {
            let connection = Uuid::new_v4();
            // Whoever breaks off, or talks nonsense, has ended its connection.
            let _ = converse(stream, connection, relay.as_ref()).await;
            relay.closed(connection).await;
            drop(permit);
        });
    }
}

async fn converse(mut stream: UnixStream, connection: Uuid, relay: &impl Relay) -> io::Result<()> {
    while let Some(request) = read(&mut stream).await? {
        let answer = if request.is_passed_on() {
            relay.ask(connection, request).await
        } else {
            Message::failure()
        };
        write(&mut stream, &answer).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Barrier;

    /// Answers with the request, when as many as it waits for have asked.
    struct Echo {
        together: Barrier,
        asked: Mutex<Vec<Uuid>>,
        closed: Mutex<Vec<Uuid>>,
    }

    impl Echo {
        fn new(together: usize) -> Arc<Self> {
            let (asked, closed) = (Mutex::default(), Mutex::default());
            Arc::new(Self { together: Barrier::new(together), asked, closed })
        }
    }

    impl Relay for Echo {
        async fn ask(&self, connection: Uuid, request: Message) -> Message {
            self.asked.lock().unwrap().push(connection);
            self.together.wait().await;
            request
        }

        async fn closed(&self, connection: Uuid) {
            self.closed.lock().unwrap().push(connection);
        }
    }

    async fn ask(stream: &mut UnixStream, bytes: &[u8]) -> Message {
        write(stream, &Message::new(bytes.to_vec()).unwrap()).await.unwrap();
        read(stream).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn connections_are_told_apart_and_served_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let (path, echo) = (directory.path().join("agent"), Echo::new(2));
        let socket = AgentSocket::listen(&path, Arc::clone(&echo)).unwrap();
        let mut one = UnixStream::connect(&path).await.unwrap();
        let mut two = UnixStream::connect(&path).await.unwrap();
        let (first, second) = tokio::join!(ask(&mut one, b"\x0bone"), ask(&mut two, b"\x0btwo"));
        assert_eq!((first.bytes(), second.bytes()), (&b"\x0bone"[..], &b"\x0btwo"[..]));
        let asked = echo.asked.lock().unwrap().clone();
        assert_ne!(asked[0], asked[1]);
        drop((one, two));
        while echo.closed.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
        drop(socket);
        assert!(UnixStream::connect(&path).await.is_err());
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_would_change_the_agent_never_leaves() {
        let directory = tempfile::tempdir().unwrap();
        let (path, echo) = (directory.path().join("agent"), Echo::new(1));
        let _socket = AgentSocket::listen(&path, Arc::clone(&echo)).unwrap();
        let mut stream = UnixStream::connect(&path).await.unwrap();
        // Add, remove, remove all, add from a card, lock, unlock, add with constraints.
        for kind in [17, 18, 19, 20, 22, 23, 25, 26, 1, 0, 255] {
            assert_eq!(ask(&mut stream, &[kind, 1, 2]).await, Message::failure(), "{kind}");
        }
        assert!(echo.asked.lock().unwrap().is_empty());
        assert_eq!(ask(&mut stream, &[11]).await.bytes(), [11]);
    }

    #[tokio::test]
    async fn nonsense_ends_the_connection_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let (path, echo) = (directory.path().join("agent"), Echo::new(1));
        let _socket = AgentSocket::listen(&path, Arc::clone(&echo)).unwrap();
        let mut good = UnixStream::connect(&path).await.unwrap();
        for nonsense in [&[0, 0, 0, 0][..], &[0xff; 64], b"GET / HTTP/1.1\r\n\r\n"] {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(nonsense).await.unwrap();
            let mut rest = Vec::new();
            // Closed with bytes unread, which may be a reset.
            let _ = stream.read_to_end(&mut rest).await;
            assert!(rest.is_empty());
            assert_eq!(ask(&mut good, &[11]).await.bytes(), [11]);
        }
    }

    #[tokio::test]
    async fn a_long_path_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("x".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let socket = AgentSocket::listen(&deep.join("agent"), Echo::new(1)).unwrap();
        assert!(socket.path().exists());
        // Whoever connects has a short name for it, as a container has.
        let short = directory.path().join("short");
        std::os::unix::fs::symlink(&deep, &short).unwrap();
        let mut stream = UnixStream::connect(short.join("agent")).await.unwrap();
        assert_eq!(ask(&mut stream, &[11]).await.bytes(), [11]);
        drop(socket);
        assert!(!deep.join("agent").exists());
    }
}
