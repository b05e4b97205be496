//! The files of the context that a copy depends on.

use std::collections::BTreeMap;

use common::Digest;
use common::tree::{EntryKind, Manifest, Owners};

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
                manifest.digest_of(entries(), Owners::Ignored)
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
