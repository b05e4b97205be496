//! The files of the context that a copy depends on.
//!
//! The selection may be larger than what is copied, never smaller: where a link lies on the way the
//! whole context counts.

use common::Digest;
use common::digest::Hasher;
use common::tree::{Entry, EntryKind, Manifest, TreePath};

use crate::diagnostic::{Problem, nearest};
use crate::ignore;

/// Digest of what `pattern` (absolute) selects. A name without wildcards that is not there is an
/// error.
pub(crate) fn select(context: Option<&Manifest>, pattern: &str) -> Result<Digest, Problem> {
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    let Some(context) = context else {
        if parts.is_empty() || has_wildcard(pattern) {
            return Ok(Digest::of(b""));
        }
        return Err(missing(None, pattern, &parts));
    };
    let mut matched: Vec<&Entry> = Vec::new();
    for entry in &context.entries {
        match place(&parts, &entry.path) {
            Place::Elsewhere => {}
            Place::OnTheWay | Place::Matched if matches!(entry.kind, EntryKind::Symlink { .. }) => {
                return Ok(digest(context.entries.iter()));
            }
            Place::OnTheWay => {}
            Place::Matched | Place::Below => matched.push(entry),
        }
    }
    if matched.is_empty() && !has_wildcard(pattern) {
        return Err(missing(Some(context), pattern, &parts));
    }
    Ok(digest(matched.into_iter()))
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
    let fits = |(part, name): (&&str, &&str)| {
        *part == *name || (has_wildcard(part) && ignore::component(part, name))
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
fn digest<'a>(entries: impl Iterator<Item = &'a Entry>) -> Digest {
    let mut hasher = Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for entry in entries {
        field(entry.path.as_bytes());
        field(&entry.mode.to_le_bytes());
        for (name, value) in &entry.xattrs {
            field(name.as_bytes());
            field(value);
        }
        match &entry.kind {
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
            EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
                field(b"device");
                field(&major.to_le_bytes());
                field(&minor.to_le_bytes());
            }
        }
    }
    hasher.finish()
}

fn missing(context: Option<&Manifest>, pattern: &str, parts: &[&str]) -> Problem {
    let name = parts.join("/");
    let problem =
        Problem::new("missing-source", format!("{pattern:?} not found in the build context"));
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
