//! The socket through which `slipway-worker store` talks to a running worker.
//!
//! A line of JSON there, one back. The socket lies in a directory that only its owner can enter.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::ContentStore;
use super::command::{Answer, StoreAction, act};
use super::policy::Limits;

/// Longest request.
const REQUEST_BYTES: u64 = 4096;
/// Longest answer: a store has some ten thousand entries.
const ANSWER_BYTES: u64 = 256 << 20;
/// How long a request may take to arrive, and an answer to leave.
const PATIENCE: Duration = Duration::from_secs(10);

/// The path of the socket, by way of an open directory: such a path has a hundred bytes at most.
fn socket(directory: &File) -> PathBuf {
    format!("/proc/self/fd/{}/socket", directory.as_raw_fd()).into()
}

/// Answers until `stop`.
pub(crate) async fn serve(store: Arc<ContentStore>, limits: Limits, stop: CancellationToken) {
    let (directory, listener) = match listen(&store.root) {
        Ok(both) => both,
        Err(error) => {
            tracing::warn!(%error, "`slipway-worker store` cannot be answered");
            return;
        }
    };
    loop {
        // One after the other: what they ask for reads the whole disk.
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let answered = match stream {
            Ok((stream, _)) => answer(&store, limits, stream).await,
            Err(error) => Err(error),
        };
        if let Err(error) = answered {
            tracing::warn!(%error, "a request for the store was not answered");
        }
    }
    let _ = fs::remove_file(socket(&directory));
}

fn listen(root: &Path) -> io::Result<(File, UnixListener)> {
    let place = root.join("control");
    fs::create_dir_all(&place)?;
    fs::set_permissions(&place, Permissions::from_mode(0o700))?;
    let directory = File::open(&place)?;
    let path = socket(&directory);
    super::index::discard(&place.join("socket"))?;
    let listener = UnixListener::bind(path)?;
    Ok((directory, listener))
}

async fn answer(
    store: &Arc<ContentStore>,
    limits: Limits,
    mut stream: UnixStream,
) -> io::Result<()> {
    let mut line = Vec::new();
    let (reader, mut writer) = stream.split();
    let mut reader = tokio::io::BufReader::new(reader).take(REQUEST_BYTES);
    tokio::time::timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await??;
    let action: StoreAction = serde_json::from_slice(&line)?;
    let store = Arc::clone(store);
    let acted = tokio::task::spawn_blocking(move || act(&store, limits, action)).await?;
    let answer = acted.unwrap_or_else(|error| Answer::Failed(error.to_string()));
    let mut bytes = serde_json::to_vec(&answer)?;
    bytes.push(b'\n');
    tokio::time::timeout(PATIENCE, writer.write_all(&bytes)).await?
}

/// Asks the worker that uses the data directory.
pub(super) fn ask(root: &Path, action: StoreAction) -> io::Result<Answer> {
    let directory = File::open(root.join("control"))?;
    let mut stream = std::os::unix::net::UnixStream::connect(socket(&directory))?;
    let mut line = serde_json::to_vec(&action)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    io::BufReader::new(stream).take(ANSWER_BYTES).read_until(b'\n', &mut answer)?;
    if !answer.ends_with(b"\n") {
        return Err(io::Error::other("the worker gave no answer"));
    }
    Ok(serde_json::from_slice(&answer)?)
}
