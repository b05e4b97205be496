//! Sending lines.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::public::v1::{LogLine, LogStream};
use api::worker::v1::LogChunk;
use client::worker::Client;
use common::Lease;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::bound::Bound;
use super::mask::Mask;
use super::split::Splitter;
use crate::runtime::OutputChunk;

/// Text of one chunk at most, in bytes.
const CHUNK_BYTES: usize = 192 << 10;
/// Lines of one chunk at most: on the wire each costs far more than its text.
const CHUNK_LINES: usize = 4096;
/// A chunk is sent this long after its first line.
const CHUNK_AGE: Duration = Duration::from_millis(250);
/// Lines that wait to be sent: a command that writes faster waits.
const BUFFER: usize = 4096;
/// First pause before a chunk is sent again; it doubles up to the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The log of one attempt.
#[derive(Debug)]
pub(crate) struct LogSink {
    writer: LogWriter,
    task: JoinHandle<()>,
}

/// Writes lines of an attempt.
#[derive(Debug, Clone)]
pub(crate) struct LogWriter {
    lease: Lease,
    mask: Mask,
    lines: mpsc::Sender<Item>,
}

/// What goes to the task that sends.
#[derive(Debug)]
enum Item {
    Line(LogLine),
    /// Everything before it is to be sent now; it is dropped after that.
    Flush(oneshot::Sender<()>),
}

impl LogSink {
    /// A log that is sent with `client`, without what `mask` hides.
    pub(crate) fn start(client: Client, lease: Lease, mask: Mask) -> Self {
        let (lines, queue) = mpsc::channel(BUFFER);
        let task = tokio::spawn(send_all(client, lease, queue));
        Self { writer: LogWriter { lease, mask, lines }, task }
    }

    /// Something that writes to it.
    pub(crate) fn writer(&self) -> LogWriter {
        self.writer.clone()
    }

    /// Waits until everything has been sent.
    pub(crate) async fn finish(self) {
        drop(self.writer);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task of a log failed");
        }
    }
}

impl LogWriter {
    /// Writes one line.
    pub(crate) async fn line(&self, step: u32, stream: LogStream, text: String) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let (stage, text) = (self.lease.stage, self.mask.apply(text));
        // The other side ends only after every writer.
        let line = LogLine { stage, time_millis, step, stream, text };
        let _ = self.lines.send(Item::Line(line)).await;
    }

    /// Waits until all lines before this have been sent.
    pub(crate) async fn flush(&self) {
        let (sender, receiver) = oneshot::channel();
        if self.lines.send(Item::Flush(sender)).await.is_ok() {
            // There is no answer but the end.
            let _ = receiver.await;
        }
    }

    /// Writes what a command puts out, until it ends: at most `limit` bytes and the end of what
    /// comes after them. What is left out is counted, and the command is not held up by it.
    pub(crate) async fn forward(
        &self,
        step: u32,
        mut output: mpsc::Receiver<OutputChunk>,
        limit: u64,
    ) {
        let mut splitters = [Splitter::default(), Splitter::default()];
        let mut bound = Bound::new(limit);
        let index = |stream: LogStream| usize::from(stream == LogStream::Stderr);
        while let Some(chunk) = output.recv().await {
            for text in splitters[index(chunk.stream)].push(&chunk.bytes) {
                if let Some(text) = bound.admit(chunk.stream, text) {
                    self.line(step, chunk.stream, text).await;
                }
            }
        }
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            if let Some(text) = splitters[index(stream)].finish()
                && let Some(text) = bound.admit(stream, text)
            {
                self.line(step, stream, text).await;
            }
        }
        if let Some(notice) = bound.notice() {
            self.line(step, LogStream::System, notice).await;
        }
        for (stream, text) in bound.end() {
            self.line(step, stream, text).await;
        }
    }
}

async fn send_all(client: Client, lease: Lease, mut queue: mpsc::Receiver<Item>) {
    let mut number = 0;
    while let Some(first) = queue.recv().await {
        let Item::Line(first) = first else { continue };
        let mut flush = None;
        let mut bytes = first.text.len();
        let mut lines = vec![first];
        let age = tokio::time::sleep(CHUNK_AGE);
        tokio::pin!(age);
        while bytes < CHUNK_BYTES && lines.len() < CHUNK_LINES {
            tokio::select! {
                line = queue.recv() => match line {
                    Some(Item::Line(line)) => {
                        bytes += line.text.len();
                        lines.push(line);
                    }
                    Some(Item::Flush(sender)) => {
                        flush = Some(sender);
                        break;
                    }
                    None => break,
                },
                () = &mut age => break,
            }
        }
        let chunk = LogChunk { lease, chunk: number, lines };
        number += 1;
        send_chunk(&client, &chunk).await;
        drop(flush);
    }
}

/// Sends a chunk until it is taken, or refused for good: then nobody wants the rest either.
async fn send_chunk(client: &Client, chunk: &LogChunk) {
    let mut pause = FIRST_PAUSE;
    loop {
        match client.logs(chunk).await {
            Ok(()) => return,
            Err(error) if error.is_transient() || error.status() == Some(401) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => {
                tracing::debug!(stage.lease = %chunk.lease, %error, "log lines were refused");
                return;
            }
        }
    }
}
