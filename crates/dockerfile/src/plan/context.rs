//! The files of the context that a copy depends on.

use std::collections::BTreeMap;

use common::Digest;
use common::digest::Hasher;
use common::tree::{Entry, EntryKind, Manifest};

use super::Files;
use super::paths;
use super::select::{Selection, has_wildcard};
use crate::diagnostic::{Problem, nearest};
use crate::expand::Budget;

/// The context of one plan.
pub(crate) struct Context<'a> {
    files: Files<'a>,
    /// What was asked for before: many stages copy the same.
    known: BTreeMap<String, Digest>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(files: Files<'a>) -> Self {
        Self { files, known: BTreeMap::new() }
    }

    /// Digest of what `pattern` (absolute) selects. A name without wildcards that is not there is
    /// an error.
    pub(crate) fn select(&mut self, pattern: &str, budget: &Budget) -> Result<Digest, Problem> {
        if let Some(digest) = self.known.get(pattern) {
            return Ok(*digest);
        }
        let parts: Vec<&str> =
            pattern.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let digest = match self.files {
            Files::Unknown => Digest::of(b""),
            Files::Known(None) if parts.is_empty() || has_wildcard(pattern) => Digest::of(b""),
            Files::Known(None) => return Err(missing(None, pattern, &parts)),
            Files::Known(Some(manifest)) => {
                let found = Selection::of(manifest, pattern, budget)?;
                let entries = || found.iter().map(|position| &manifest.entries[*position]);
                if is_kept_back(manifest) || entries().any(|it| it.kind == EntryKind::Unsent) {
                    return Err(unsent(pattern));
                }
                if found.is_empty() && !has_wildcard(pattern) {
                    return Err(missing(Some(manifest), &paths::searched(pattern), &parts));
                }
                digest(manifest, entries())
            }
        };
        self.known.insert(pattern.to_owned(), digest);
        Ok(digest)
    }

    /// The patterns that were asked for.
    pub(crate) fn patterns(self) -> impl Iterator<Item = String> {
        self.known.into_keys()
    }
}

/// Whether the client sent no more of it than that it is there.
fn is_kept_back(manifest: &Manifest) -> bool {
    manifest.entries.first().is_some_and(|root| root.kind == EntryKind::Unsent)
}

fn unsent(pattern: &str) -> Problem {
    let message = format!("{pattern:?} was not sent: the client could not see that it is needed");
    Problem::new(Problem::NOT_SENT, message)
        .with_hint("a client that sends whole contexts can build this")
}

/// Path, type, mode, capability, link and content of each entry; never times. Owners are root's.
/// A hard link counts as the file that it is: the entry it names may lie outside the selection.
fn digest<'a>(manifest: &Manifest, entries: impl IntoIterator<Item = &'a Entry>) -> Digest {
    let mut hasher = Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for entry in entries {
        field(entry.path.as_bytes());
        field(&entry.mode.to_le_bytes());
        field(&(entry.xattrs.len() as u64).to_le_bytes());
        for (name, value) in &entry.xattrs {
            field(name.as_bytes());
            field(value);
        }
        let kind = match &entry.kind {
            EntryKind::Hardlink { target } => {
                manifest.get(target).map_or(&entry.kind, |entry| &entry.kind)
            }
            kind => kind,
        };
        match kind {
            EntryKind::Directory => field(b"directory"),
            EntryKind::File { digest, .. } => {
                field(b"file");
                field(digest.as_bytes());
            }
            EntryKind::Hardlink { target } => {
                field(b"hardlink");
                field(target.as_bytes());
            }
            EntryKind::Symlink { target } => {
                field(b"symlink");
                field(target);
            }
            // Nobody asks for one that was not sent.
            EntryKind::Unsent => field(b"unsent"),
            EntryKind::Fifo => field(b"fifo"),
            EntryKind::CharDevice { major, minor } => {
                field(b"character device");
                field(&major.to_le_bytes());
                field(&minor.to_le_bytes());
            }
            EntryKind::BlockDevice { major, minor } => {
                field(b"block device");
                field(&major.to_le_bytes());
                field(&minor.to_le_bytes());
            }
        }
    }
    hasher.finish()
}

fn missing(context: Option<&Manifest>, pattern: &str, parts: &[&str]) -> Problem {
    let name = parts.join("/");
    let problem = Problem::new(
        Problem::NOT_IN_CONTEXT,
        format!("{pattern:?} not found in the build context"),
    );
    let names: Vec<String> = context
        .map(|context| context.entries.iter().map(|entry| entry.path.display()).collect())
        .unwrap_or_default();
    match nearest(&name, names.iter().map(String::as_str).filter(|name| !name.is_empty())) {
        Some(found) => problem.with_hint(format!(
            "did you mean {found}? Paths are relative to the context, and .dockerignore may hide files"
        )),
        None => problem.with_hint(
            "paths are relative to the context directory; check that .dockerignore does not hide the file",
        ),
    }
}
