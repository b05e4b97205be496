//! COPY and ADD.

use std::sync::Arc;

use common::Digest;
use common::cache_key::{KeyBuilder, PARENT};
use common::plan::{Chmod, CopyFrom, CopyOp, InlineFile, Op, Unpack};

use super::graph;
use super::run::check_file_name;
use super::stage::{Planner, Work, push_step};
use super::{history, paths};
use crate::diagnostic::Problem;
use crate::expand;
use crate::instruction::{Copy, SourceKind, Spanned, source_kind};
use common::ignore::IgnoreFile;

/// A copy with its words expanded.
struct Expanded {
    /// All of them, for history.
    shown: Vec<String>,
    /// Those that are paths, with how they are written.
    sources: Vec<(String, String)>,
    /// URLs, and whether each is a repository.
    urls: Vec<(String, bool)>,
    checksum: Option<String>,
    destination: String,
    chown: Option<String>,
    mode: Option<String>,
}

impl Planner<'_> {
    pub(super) fn copy(
        &mut self,
        work: &mut Work,
        copy: &Copy,
        spanned: &Spanned,
    ) -> Result<(), Problem> {
        let words = self.copy_words(work, copy)?;
        let destination = paths::destination(&work.config.working_dir, &words.destination);
        let source = |(source, _): &(String, String)| {
            if copy.parents { paths::pivoted(source) } else { paths::join("/", source) }
        };
        let sources: Vec<String> = words.sources.iter().map(source).collect();
        let mut key = KeyBuilder::new();
        key.part(PARENT, work.key.to_string());
        let written: Vec<&str> = words.sources.iter().map(|(_, text)| text.as_str()).collect();
        let from = self.copy_source(work, copy, (&sources, &written), &mut key)?;
        let mut remotes = Vec::new();
        let (checksum, lines) = (words.checksum.as_deref(), spanned.lines);
        for (url, is_repository) in &words.urls {
            remotes.push(if *is_repository {
                self.repository(url, (checksum, copy.keep_git_dir), lines, &mut key)?
            } else {
                self.http(url, checksum, lines, &mut key)?
            });
        }
        let op = CopyOp {
            remotes,
            inline: self.inline(work, copy)?,
            chown: words.chown.clone(),
            chmod: words.mode.as_deref().map(parse_mode).transpose()?,
            unpack: match (copy.is_add, copy.unpack) {
                (false, _) | (true, Some(false)) => Unpack::Never,
                (true, None) => Unpack::Local,
                (true, Some(true)) => Unpack::All,
            },
            // Ignored together with --chmod, as in BuildKit.
            link: copy.link && words.mode.is_none(),
            parents: copy.parents,
            exclude: excludes(&copy.exclude)?,
            ..CopyOp::new(from, sources, destination)
        };
        key_of_copy(&mut key, &op);
        let text = copy_history(copy, &words, &op);
        work.history.push(history::entry(text, false));
        push_step(work, spanned.lines, spanned.text.clone(), Op::Copy(op), key);
        Ok(())
    }

    fn copy_words(&self, work: &Work, copy: &Copy) -> Result<Expanded, Problem> {
        // A flag whose value expands to nothing is as good as absent.
        let flag = |value: &Option<String>| -> Result<Option<String>, Problem> {
            let value = value.as_ref().map(|value| self.expand(work, value)).transpose()?;
            Ok(value.filter(|value| !value.is_empty()))
        };
        let (mode, chown, checksum) =
            (flag(&copy.chmod)?, flag(&copy.chown)?, flag(&copy.checksum)?);
        let (mut shown, mut sources, mut urls) = (Vec::new(), Vec::new(), Vec::new());
        for written in &copy.sources {
            let source = self.expand(work, written)?;
            shown.push(source.clone());
            match source_kind(copy.is_add, &source)? {
                SourceKind::Path => sources.push((source, written.clone())),
                SourceKind::Http => urls.push((source, false)),
                SourceKind::Git => urls.push((source, true)),
            }
        }
        if checksum.is_some() && shown.len() > 1 {
            let message = "checksum can't be specified for multiple sources";
            return Err(Problem::new("bad-checksum", message));
        }
        if checksum.is_some() && urls.is_empty() {
            let message = "checksum requires HTTP(S) or Git sources";
            return Err(Problem::new("bad-checksum", message));
        }
        let destination = self.expand(work, &copy.destination)?;
        Ok(Expanded { shown, sources, urls, checksum, destination, chown, mode })
    }

    /// A source that is not in the context may have been left out of it.
    fn missing(&self, source: &str, problem: Problem) -> Problem {
        let path = source.trim_matches('/');
        let is_ignored = |ignore: &Arc<IgnoreFile>| !path.is_empty() && ignore.is_ignored(path);
        if problem.code == Problem::NOT_IN_CONTEXT
            && self.options.ignore.as_ref().is_some_and(is_ignored)
        {
            return problem.with_hint(".dockerignore leaves it out of the context");
        }
        problem
    }

    fn inline(&self, work: &Work, copy: &Copy) -> Result<Vec<InlineFile>, Problem> {
        let mut inline = Vec::new();
        for heredoc in &copy.heredocs {
            check_file_name(&heredoc.name)?;
            let content = if heredoc.expand {
                self.expand_with(work, &heredoc.content, &expand::expand_body)?
            } else {
                heredoc.content.clone()
            };
            inline.push(InlineFile { name: heredoc.name.clone(), content });
        }
        Ok(inline)
    }

    /// Where the files come from, and what of it makes the key. Sources are expanded, and beside that
    /// as written.
    fn copy_source(
        &mut self,
        work: &Work,
        copy: &Copy,
        (sources, written): (&[String], &[&str]),
        key: &mut KeyBuilder,
    ) -> Result<CopyFrom, Problem> {
        let Some(from) = &copy.from else {
            for (source, written) in sources.iter().zip(written) {
                let digest = self.context.select(source, &self.graph.global.budget);
                let digest =
                    digest.map_err(|problem| self.missing(source, problem).blaming(*written))?;
                key.part(format!("files {source}"), digest.to_string());
            }
            return Ok(CopyFrom::Context);
        };
        let found = graph::resolve_from(self.file, self.options, work.source, from, true)?;
        let (from, identity) = self.named_source(&found, sources)?;
        key.part("from", identity);
        Ok(from)
    }
}

fn key_of_copy(key: &mut KeyBuilder, op: &CopyOp) {
    key.part("sources", op.sources.join("\n")).part("destination", op.destination.clone());
    key.part("chown", op.chown.clone().unwrap_or_default());
    key.part(
        "chmod",
        match &op.chmod {
            Some(Chmod::Octal(mode)) => format!("{mode:o}"),
            Some(Chmod::Symbolic(text)) => text.clone(),
            None => String::new(),
        },
    );
    key.part("unpack", format!("{:?}", op.unpack));
    if op.link {
        key.part("link", "true");
    }
    if op.parents {
        key.part("parents", "true");
    }
    if !op.exclude.is_empty() {
        key.part("exclude", op.exclude.join("\n"));
    }
    for file in &op.inline {
        let digest = Digest::of(file.content.as_bytes());
        key.part(format!("inline file {}", file.name), digest.to_string());
    }
}

fn copy_history(copy: &Copy, words: &Expanded, op: &CopyOp) -> String {
    let mut text = if copy.is_add { "ADD" } else { "COPY" }.to_owned();
    if copy.parents {
        text.push_str(" --parents");
    }
    if let Some(owner) = &words.chown {
        text.extend([" --chown=", owner]);
    }
    if let Some(mode) = &words.mode {
        text.extend([" --chmod=", mode]);
    }
    let heredocs = op.inline.iter().map(|file| format!("<<{}", file.name));
    for source in words.shown.iter().cloned().chain(heredocs) {
        text.extend([" ", &source]);
    }
    text.extend([" ", words.destination.as_str(), " # buildkit"]);
    text
}

/// The patterns of `--exclude`, checked; nothing in them is expanded.
fn excludes(patterns: &[String]) -> Result<Vec<String>, Problem> {
    for pattern in patterns {
        IgnoreFile::parse(pattern.as_bytes()).map_err(|failure| {
            Problem::new("bad-exclude", format!("--exclude={pattern}: {}", failure.message))
                .blaming(pattern.as_str())
        })?;
    }
    Ok(patterns.to_vec())
}

/// `--chmod`: octal, or as chmod(1) takes it.
fn parse_mode(text: &str) -> Result<Chmod, Problem> {
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let octal = digits.and_then(|text| u32::from_str_radix(text, 8).ok());
    if let Some(mode) = octal.filter(|mode| *mode <= 0o7777) {
        return Ok(Chmod::Octal(mode));
    }
    if !text.contains(['+', '-', '=']) {
        let message = format!(
            "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
        );
        return Err(Problem::new("bad-flag-value", message).blaming(text));
    }
    if is_symbolic(text) {
        return Ok(Chmod::Symbolic(text.to_owned()));
    }
    let message = format!("invalid chmod parameter: '{text}': invalid syntax");
    Err(Problem::new("bad-flag-value", message).with_hint("as in chmod(1): u=rwX,go=rX"))
}

/// Clauses of `[ugoa]*([-+=][rwxXst]*|[ugo])+` between commas.
fn is_symbolic(text: &str) -> bool {
    text.split(',').all(|clause| {
        let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        let mut parts = actions.split(['+', '-', '=']);
        let first = parts.next();
        let is_action = |part: &str| {
            matches!(part, "u" | "g" | "o") || part.chars().all(|char| "rwxXst".contains(char))
        };
        first == Some("") && !actions.is_empty() && parts.all(is_action)
    })
}
