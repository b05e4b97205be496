//! The files of the context that a copy depends on.
//!
//! The selection may be larger than what is copied, never smaller: where a link lies on the way the
//! whole context counts.

use std::collections::BTreeMap;

use common::Digest;
use common::digest::Hasher;
use common::tree::{Entry, EntryKind, Manifest, TreePath};

use super::Files;
use crate::diagnostic::{Problem, nearest};
use crate::expand::Budget;
use common::ignore;

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
        let Files::Known(manifest) = self.files else { return Ok(Digest::of(b"")) };
        let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
        let digest = match manifest {
            None if parts.is_empty() || has_wildcard(pattern) => Digest::of(b""),
            None => return Err(missing(None, pattern, &parts)),
            Some(manifest) => match matched(manifest, &parts, budget)? {
                Matched::ThroughLink if parts.is_empty() => digest(manifest, &manifest.entries),
                Matched::ThroughLink => self.select("/", budget)?,
                Matched::Entries(entries) if entries.is_empty() && !has_wildcard(pattern) => {
                    return Err(missing(Some(manifest), pattern, &parts));
                }
                Matched::Entries(entries) => digest(manifest, entries),
            },
        };
        self.known.insert(pattern.to_owned(), digest);
        Ok(digest)
    }
}

enum Matched<'a> {
    Entries(Vec<&'a Entry>),
    /// A link lies on the way: anything may be meant.
    ThroughLink,
}

fn matched<'a>(
    manifest: &'a Manifest,
    parts: &[&str],
    budget: &Budget,
) -> Result<Matched<'a>, Problem> {
    let literal = parts.iter().take_while(|part| !has_wildcard(part)).count();
    for length in 1..=literal {
        let entry = TreePath::new(parts[..length].join("/")).ok().and_then(|p| manifest.get(&p));
        if entry.is_some_and(|entry| matches!(entry.kind, EntryKind::Symlink { .. })) {
            return Ok(Matched::ThroughLink);
        }
    }
    let prefix = parts[..literal].join("/");
    let below = |entry: &Entry| entry.path.as_bytes() < format!("{prefix}/").as_bytes();
    let beyond = |entry: &Entry| entry.path.as_bytes() < format!("{prefix}0").as_bytes();
    let (from, to) = match literal {
        0 => (0, manifest.entries.len()),
        // `0` is what follows the slash.
        _ => (manifest.entries.partition_point(below), manifest.entries.partition_point(beyond)),
    };
    let itself = TreePath::new(prefix).ok().filter(|_| literal > 0);
    let itself = itself.and_then(|path| manifest.get(&path));
    budget.charge(to - from + 1).map_err(Problem::too_much)?;
    let mut matched: Vec<&Entry> = Vec::new();
    for entry in itself.into_iter().chain(&manifest.entries[from..to]) {
        match place(parts, &entry.path) {
            Place::OnTheWay | Place::Matched if matches!(entry.kind, EntryKind::Symlink { .. }) => {
                return Ok(Matched::ThroughLink);
            }
            Place::Elsewhere | Place::OnTheWay => {}
            Place::Matched | Place::Below => matched.push(entry),
        }
    }
    Ok(Matched::Entries(matched))
}

fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '\\'])
}

enum Place {
    /// The pattern goes on below it.
    OnTheWay,
    /// It is what the pattern names.
    Matched,
    /// It lies below what the pattern names.
    Below,
    Elsewhere,
}

fn place(parts: &[&str], path: &TreePath) -> Place {
    let text = path.display();
    let names: Vec<&str> = text.split('/').filter(|name| !name.is_empty()).collect();
    // Whoever copies may see bytes where this sees characters: such names fit every wildcard.
    let fits = |(part, name): (&&str, &&str)| {
        *part == *name
            || (has_wildcard(part) && (!name.is_ascii() || ignore::component(part, name)))
    };
    if !parts.iter().zip(&names).all(fits) {
        return Place::Elsewhere;
    }
    match names.len().cmp(&parts.len()) {
        std::cmp::Ordering::Less => Place::OnTheWay,
        std::cmp::Ordering::Equal => Place::Matched,
        std::cmp::Ordering::Greater => Place::Below,
    }
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
