//! Logs: what is stored, then what comes, without gap or repetition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::public::v1::LogLine;
use common::build::BuildState;
use common::{BuildId, Epoch, StageId};
use logbus::Message;
use tokio::sync::mpsc;

use super::{App, AppError};

/// Longest stored chunk.
const MAX_CHUNK_BYTES: usize = 4 << 20;
/// Time between looks at the store while following.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A line with its place, by which a reader can go on later.
#[derive(Debug, Clone)]
pub(crate) struct LogEvent {
    /// The stage that wrote it, in the place of that which it is shown for.
    pub(crate) holder: StageId,
    pub(crate) epoch: Epoch,
    pub(crate) chunk: u32,
    pub(crate) position: usize,
    pub(crate) line: LogLine,
}

impl LogEvent {
    /// `<stage>:<epoch>:<chunk>:<line>`, and `:<stage>` of another one that wrote it.
    pub(crate) fn id(&self) -> String {
        let own = format!("{}:{}:{}:{}", self.line.stage, self.epoch, self.chunk, self.position);
        if self.holder == self.line.stage { own } else { format!("{own}:{}", self.holder) }
    }
}

/// What a reader has: per stage and attempt the chunks, and how much of the last one.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    done: BTreeMap<(Writer, Epoch), Vec<bool>>,
    /// Everything up to this place was read before.
    resume: Option<(Writer, Epoch, u32, usize)>,
}

/// The stage that a line is shown for, and that which wrote it.
type Writer = (StageId, StageId);

impl Cursor {
    /// A cursor behind the line with this id; an id that is none starts at the beginning.
    pub(crate) fn after(id: Option<&str>) -> Self {
        let resume = id.and_then(|id| {
            let mut parts = id.split(':');
            let stage: StageId = parts.next()?.parse().ok()?;
            let epoch = Epoch(parts.next()?.parse().ok()?);
            let chunk = parts.next()?.parse().ok()?;
            let line = parts.next()?.parse().ok()?;
            let holder = match parts.next() {
                Some(holder) => holder.parse().ok()?,
                None => stage,
            };
            Some(((stage, holder), epoch, chunk, line))
        });
        Self { done: BTreeMap::new(), resume }
    }

    /// Takes note of a chunk; false when it was seen before.
    fn take(&mut self, stage: Writer, epoch: Epoch, chunk: u32) -> bool {
        let seen = self.done.entry((stage, epoch)).or_default();
        let position = chunk as usize;
        if seen.len() <= position {
            seen.resize(position + 1, false);
        }
        !std::mem::replace(&mut seen[position], true)
    }

    /// How many lines of a chunk of the resumed stage were read before.
    fn skip(&self, stage: Writer, epoch: Epoch, chunk: u32) -> Option<usize> {
        let (at_stage, at_epoch, at_chunk, line) = self.resume?;
        if stage != at_stage {
            return Some(0);
        }
        match (epoch, chunk).cmp(&(at_epoch, at_chunk)) {
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Equal => Some(line + 1),
            std::cmp::Ordering::Greater => Some(0),
        }
    }
}

impl App {
    /// Sends the log of a build, or of one stage of it, into `output`; with `follow` until the
    /// build has ended.
    pub(crate) async fn read_log(
        self: Arc<Self>,
        build: BuildId,
        stage: Option<StageId>,
        follow: bool,
        mut cursor: Cursor,
        output: mpsc::Sender<LogEvent>,
    ) -> Result<(), AppError> {
        let mut live = self.bus.subscribe();
        loop {
            // Before the look at the store, so that nothing comes in between.
            let state = self.store.build(build).await?.state;
            let ended = BuildState::from_name(&state).is_some_and(BuildState::is_terminal);
            let attached = self.store.attachments(build).await?;
            if !self.send_stored(build, stage, &mut cursor, &output).await? || !follow || ended {
                return Ok(());
            }
            let look_again = tokio::time::sleep(LOOK_AGAIN);
            tokio::pin!(look_again);
            loop {
                let message = tokio::select! {
                    message = live.recv() => message,
                    () = &mut look_again => break,
                    () = output.closed() => return Ok(()),
                };
                match message {
                    Ok(Message::Log(of, chunk)) if of == build => {
                        let (holder, epoch) = (chunk.lease.stage, chunk.lease.epoch);
                        let shown = attached.iter().filter(|(leader, _)| *leader == holder);
                        let mut shown: Vec<StageId> = shown.map(|(_, own)| *own).collect();
                        if shown.is_empty() {
                            shown.push(holder);
                        }
                        shown.retain(|shown| stage.is_none_or(|stage| stage == *shown));
                        for shown in shown {
                            let place = ((shown, holder), epoch, chunk.chunk);
                            if cursor.take(place.0, place.1, place.2)
                                && !send(&output, &cursor, place, chunk.lines.clone()).await
                            {
                                return Ok(());
                            }
                        }
                    }
                    // Its state may have changed: look.
                    Ok(Message::Build(of)) if of == build => break,
                    Ok(_) => {}
                    // Too slow: the store has it all.
                    Err(_) => break,
                }
            }
        }
    }

    /// Sends what is stored and not sent yet. False when nobody listens any more.
    async fn send_stored(
        &self,
        build: BuildId,
        stage: Option<StageId>,
        cursor: &mut Cursor,
        output: &mpsc::Sender<LogEvent>,
    ) -> Result<bool, AppError> {
        for row in self.store.log_chunks(build, stage).await? {
            let place = ((row.stage, row.holder), row.epoch, row.chunk);
            if !cursor.take(place.0, place.1, place.2) {
                continue;
            }
            let bytes = self.objects.get(&row.object, MAX_CHUNK_BYTES).await?;
            let lines: Vec<LogLine> = serde_json::from_slice(&bytes)?;
            if !send(output, cursor, place, lines).await {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

async fn send(
    output: &mpsc::Sender<LogEvent>,
    cursor: &Cursor,
    (writer, epoch, chunk): (Writer, Epoch, u32),
    lines: Vec<LogLine>,
) -> bool {
    let skip = match cursor.resume {
        Some(_) => match cursor.skip(writer, epoch, chunk) {
            Some(skip) => skip,
            None => return true,
        },
        None => 0,
    };
    let (stage, holder) = writer;
    for (position, line) in lines.into_iter().enumerate().skip(skip) {
        let line = LogLine { stage, ..line };
        if output.send(LogEvent { holder, epoch, chunk, position, line }).await.is_err() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_reader_goes_on_behind_the_line_it_has() {
        let stage = StageId(Uuid::from_u128(1));
        let other = StageId(Uuid::from_u128(2));
        let cursor = Cursor::after(Some(&format!("{stage}:2:5:7")));
        assert_eq!(cursor.skip((stage, stage), Epoch(1), 9), None);
        assert_eq!(cursor.skip((stage, stage), Epoch(2), 4), None);
        assert_eq!(cursor.skip((stage, stage), Epoch(2), 5), Some(8));
        assert_eq!(cursor.skip((stage, stage), Epoch(2), 6), Some(0));
        assert_eq!(cursor.skip((other, other), Epoch(1), 0), Some(0));
        let shared = Cursor::after(Some(&format!("{stage}:2:5:7:{other}")));
        assert_eq!(shared.skip((stage, other), Epoch(2), 5), Some(8));
        assert_eq!(shared.skip((stage, stage), Epoch(2), 5), Some(0), "its own lines come after");
        assert!(Cursor::after(Some("nonsense")).resume.is_none());
    }

    #[test]
    fn a_chunk_counts_once() {
        let stage = StageId(Uuid::from_u128(1));
        let mut cursor = Cursor::default();
        assert!(cursor.take((stage, stage), Epoch(1), 3));
        assert!(!cursor.take((stage, stage), Epoch(1), 3));
        assert!(cursor.take((stage, stage), Epoch(1), 0));
        assert!(cursor.take((stage, stage), Epoch(2), 3));
    }
}
