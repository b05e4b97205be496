//! `slipway-worker store`.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::ContentStore;
use super::control::ask;
use super::policy::{Limits, Wanted};
use super::usage::{Usage, size};
use super::verify::Verified;

/// How long a worker that starts or stops is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to do with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreAction {
    /// Tell what it holds.
    Usage,
    /// Evict what is beyond the limits.
    Collect {
        /// Instead of the configured limit.
        max_bytes: Option<u64>,
        /// Instead of the configured limit.
        min_free_bytes: Option<u64>,
        /// Everything that is not in use.
        all: bool,
    },
    /// Read everything and compare it.
    Verify,
}

/// What it came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Usage(Usage),
    Collected { entries: u64, bytes: u64 },
    Verified(Verified),
    Failed(String),
}

/// Does it here: the store is this process's.
pub(super) fn act(store: &ContentStore, limits: Limits, action: StoreAction) -> io::Result<Answer> {
    Ok(match action {
        StoreAction::Usage => Answer::Usage(store.usage(limits)?),
        StoreAction::Collect { max_bytes, min_free_bytes, all } => {
            let limits = Limits {
                max_bytes: max_bytes.unwrap_or(limits.max_bytes),
                min_free_bytes: min_free_bytes.unwrap_or(limits.min_free_bytes),
                ..limits
            };
            for known in store.index.known() {
                store.index.measure_changed(&known);
            }
            let evicted = if all { store.evict_all()? } else { store.evict(limits)? };
            Answer::Collected { entries: evicted.entries, bytes: evicted.bytes }
        }
        StoreAction::Verify => Answer::Verified(store.verify()?),
    })
}

/// Does it here if no worker uses the data directory, else there. One that starts or stops meanwhile
/// answers a little later, or is gone.
fn here_or_there(root: &Path, wanted: Wanted, action: StoreAction) -> io::Result<Answer> {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    let limit = Instant::now() + PATIENCE;
    loop {
        if let Some(store) = ContentStore::open_unused(root)? {
            return act(&store, Limits::of(wanted, store.space()?), action);
        }
        match ask(root, action) {
            Ok(answer) => return Ok(answer),
            Err(error) => {
                let passes =
                    [BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof];
                if !passes.contains(&error.kind()) || Instant::now() > limit {
                    let text = format!("the worker that uses {} does not answer", root.display());
                    return Err(io::Error::new(error.kind(), format!("{text}: {error}")));
                }
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Does it in the worker that uses the data directory, or here if none does. Returns what to print
/// and whether all is well.
pub(crate) fn run(
    root: &Path,
    wanted: Wanted,
    action: StoreAction,
    as_json: bool,
) -> io::Result<(String, bool)> {
    if !root.join("lock").exists() {
        let message = format!("{} is no worker's data directory", root.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, message));
    }
    let answer = here_or_there(root, wanted, action)?;
    let is_good = match &answer {
        Answer::Verified(verified) => verified.damaged.is_empty(),
        Answer::Failed(message) => return Err(io::Error::other(message.clone())),
        _ => true,
    };
    let text = match (&answer, as_json) {
        (Answer::Usage(usage), true) => serde_json::to_string_pretty(usage)? + "\n",
        (Answer::Verified(verified), true) => serde_json::to_string_pretty(verified)? + "\n",
        (Answer::Usage(usage), false) => usage.text(),
        (Answer::Verified(verified), false) => verified.text(),
        (Answer::Collected { entries, bytes }, _) => {
            format!("evicted {entries} entries, {}\n", size(*bytes))
        }
        (Answer::Failed(_), _) => String::new(),
    };
    Ok((text, is_good))
}
