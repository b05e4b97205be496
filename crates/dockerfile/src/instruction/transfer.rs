//! RUN, COPY and ADD.

use common::plan::{Network, Security};

use super::flags::Flags;
use super::kinds::{Copy, Run};
use super::parse::{command, json_list};
use super::words::words;
use crate::diagnostic::Problem;
use crate::source::Logical;

pub(super) fn run(flags: &mut Flags, rest: &str, line: &Logical) -> Result<Run, Problem> {
    let network = match flags.value("network")?.as_deref() {
        None | Some("default") => Network::Default,
        Some("none") => Network::None,
        Some("host") => Network::Host,
        Some(mode) => {
            let message = format!("invalid network mode {mode:?}");
            let known = ["default", "none", "host"];
            return Err(Problem::new("bad-flag-value", message).suggest(mode, known).blaming(mode));
        }
    };
    let security = match flags.value("security")?.as_deref() {
        None | Some("sandbox") => Security::Sandbox,
        Some("insecure") => Security::Insecure,
        Some(mode) => {
            let message = format!("security {mode:?} is not valid");
            let known = ["sandbox", "insecure"];
            return Err(Problem::new("bad-flag-value", message).suggest(mode, known).blaming(mode));
        }
    };
    if !flags.values("device")?.is_empty() {
        // What BuildKit's stable frontend says.
        let message =
            "device feature is only supported in Dockerfile frontend 1.14.0-labs or later";
        return Err(Problem::new("not-supported", message));
    }
    let mounts = flags.values("mount")?;
    let (command, heredocs) = (command(rest)?, line.heredocs.clone());
    Ok(Run { command, heredocs, network, security, mounts })
}

pub(super) fn copy(
    flags: &mut Flags,
    keyword: &str,
    rest: &str,
    line: &Logical,
) -> Result<Copy, Problem> {
    let is_add = keyword == "ADD";
    let (mut copy, heredocs) = (Copy { is_add, ..Copy::default() }, &line.heredocs);
    copy.chown = flags.value("chown")?;
    copy.chmod = flags.value("chmod")?;
    copy.link = flags.boolean("link")?.unwrap_or(false);
    copy.exclude = flags.values("exclude")?;
    if is_add {
        copy.checksum = flags.value("checksum")?;
        copy.keep_git_dir = flags.boolean("keep-git-dir")?;
        copy.unpack = flags.boolean("unpack")?;
    } else {
        copy.from = flags.value("from")?.filter(|from| !from.is_empty());
        copy.parents = flags.boolean("parents")?.unwrap_or(false);
    }
    let mut all = match json_list(rest)? {
        Some(list) => list,
        None => words(rest),
    };
    let Some(destination) = all.pop().filter(|_| !all.is_empty()) else {
        let message = format!(
            "{keyword} requires at least two arguments, but only one was provided. Destination could not be determined"
        );
        return Err(Problem::new("missing-argument", message));
    };
    let is_heredoc = |word: &str| {
        word.trim_start_matches(|char: char| char.is_ascii_digit()).starts_with("<<")
            && !heredocs.is_empty()
    };
    if is_heredoc(&destination) {
        let message = format!("{keyword} cannot accept a heredoc as a destination");
        return Err(Problem::new("bad-destination", message));
    }
    copy.destination = destination;
    copy.sources = all.into_iter().filter(|word| !is_heredoc(word)).collect();
    copy.heredocs.clone_from(heredocs);
    for source in copy.sources.iter().filter(|_| !is_add) {
        source_kind(is_add, source)?;
    }
    Ok(copy)
}

/// What a source of COPY or ADD is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceKind {
    /// A path or pattern.
    Path,
    /// A file behind a URL.
    Http,
    /// A git repository.
    Git,
}

/// Tells what a source is, as BuildKit does: over HTTP a repository is known by `.git` at the end
/// of the URL's path. Only ADD takes other things than paths.
pub(crate) fn source_kind(is_add: bool, source: &str) -> Result<SourceKind, Problem> {
    let path = source.split(['#', '?']).next().unwrap_or(source);
    let is_http = source.starts_with("http://") || source.starts_with("https://");
    let is_repository = path.strip_suffix(".git").is_some();
    let kind = if is_http && !is_repository {
        SourceKind::Http
    } else if is_http || ["git://", "ssh://", "git@"].iter().any(|s| source.starts_with(s)) {
        SourceKind::Git
    } else {
        SourceKind::Path
    };
    let what = match kind {
        _ if is_add => return Ok(kind),
        SourceKind::Path => return Ok(kind),
        SourceKind::Http => "a URL",
        SourceKind::Git => "a git ref",
    };
    let message = format!("source can't be {what} for COPY: {source}");
    let problem = Problem::new("bad-source", message).blaming(source);
    Err(problem.with_hint("ADD takes URLs and git repositories"))
}
