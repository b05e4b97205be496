//! `SOURCE_DATE_EPOCH`: a number, or the name of a source that is as old.
//!
//! A name is `context`, a named context, or a stage that is nothing but one file or repository from
//! elsewhere (BuildKit 0.27, "Source date epoch").

use common::outcome::LineRange;

use super::graph::find_context;
use super::scope::Global;
use crate::diagnostic::Problem;
use crate::instruction::{Copy, Instruction, SourceKind, source_kind};
use crate::repository::Repository;
use crate::stages::Stage;
use crate::{Dockerfile, Options, RemoteKind, RemoteNeed};

/// Its name.
pub(crate) const NAME: &str = "SOURCE_DATE_EPOCH";

/// What it comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Epoch {
    /// Seconds since 1970.
    pub(crate) seconds: Option<i64>,
    /// What stands for the name of a source wherever the argument is used.
    pub(crate) text: Option<String>,
    /// What has to be asked first.
    pub(crate) need: Option<RemoteNeed>,
}

impl Epoch {
    fn of_source(seconds: Option<i64>) -> Self {
        let text = seconds.map(|seconds| seconds.to_string()).unwrap_or_default();
        Self { seconds, text: Some(text), need: None }
    }
}

/// Finds out. The global arguments have been evaluated; an empty value is none.
pub(crate) fn resolve(
    file: &Dockerfile,
    options: &Options,
    global: &Global<'_>,
) -> Result<Epoch, (Problem, LineRange)> {
    let given = options.build_args.get(NAME).cloned().or_else(|| global.get(NAME));
    let Some(text) = given.filter(|text| !text.is_empty()) else { return Ok(Epoch::default()) };
    if let Ok(seconds) = text.parse() {
        return Ok(Epoch { seconds: Some(seconds), ..Epoch::default() });
    }
    if text == "context" {
        return Ok(Epoch::of_source(options.context_times.get("context").copied()));
    }
    if let Some((name, _)) = find_context(options, &text, &options.platform) {
        return Ok(Epoch::of_source(options.context_times.get(&name).copied()));
    }
    let lower = text.to_ascii_lowercase();
    let stage = file.stages.iter().find(|stage| stage.name.as_deref() == Some(&lower));
    if let Some(stage) = stage {
        return of_stage(stage, options, global);
    }
    let lines = file.global_args.first().map_or(file.stages[0].lines, |spanned| spanned.lines);
    let problem = Problem::new("bad-epoch", format!("invalid {NAME}: {text}")).with_hint(
        "it is a number of seconds since 1970, or the name of a source: context, a named context, \
         or a stage that is one ADD from elsewhere",
    );
    Err((problem.blaming(text), lines))
}

fn unfit(message: &str) -> Problem {
    Problem::new("bad-epoch", format!("{NAME} stage {message}"))
}

fn of_stage(
    stage: &Stage,
    options: &Options,
    global: &Global<'_>,
) -> Result<Epoch, (Problem, LineRange)> {
    let base = global.expand(&stage.image).map_err(|problem| (problem, stage.lines))?;
    if base != "scratch" {
        return Err((unfit("must use FROM scratch").blaming(stage.image.as_str()), stage.lines));
    }
    let mut args: Vec<(String, String)> = Vec::new();
    let mut found = None;
    for spanned in &stage.instructions {
        let lines = spanned.lines;
        match &spanned.instruction {
            Instruction::Arg(list) => {
                for (name, default) in list {
                    let default = default.as_ref().map(|word| expand(global, &args, word));
                    let default = default.transpose().map_err(|problem| (problem, lines))?;
                    if let Some(value) = global.build_arg(name).or(default) {
                        args.retain(|(known, _)| known != name);
                        args.push((name.clone(), value));
                    }
                }
            }
            Instruction::Copy(copy) if copy.is_add && found.is_none() => {
                let need = source(copy, lines, &|word| expand(global, &args, word));
                found = Some(need.map_err(|problem| (problem, lines))?);
            }
            Instruction::Copy(copy) if copy.is_add => {
                return Err((unfit("must contain exactly one remote ADD"), lines));
            }
            _ => {
                let message =
                    "does not meet source-only requirements: it is one ADD and nothing else";
                return Err((unfit(message), lines));
            }
        }
    }
    let need = found.ok_or((unfit("must contain exactly one remote ADD"), stage.lines))?;
    Ok(match options.remotes.get(&(need.kind.clone(), need.url.clone())) {
        Some(answer) => Epoch::of_source(answer.parse().ok()),
        None => Epoch { need: Some(need), ..Epoch::of_source(None) },
    })
}

fn expand(global: &Global<'_>, args: &[(String, String)], word: &str) -> Result<String, Problem> {
    let own = |name: &str| args.iter().find(|(known, _)| known == name);
    let lookup = |name: &str| match own(name) {
        Some((_, value)) => Some(value.clone()),
        None if name == NAME => None,
        None => global.get(name),
    };
    global.expand_with(word, &lookup)
}

/// What has to be asked of the source of an ADD.
fn source(
    copy: &Copy,
    lines: LineRange,
    expand: &dyn Fn(&str) -> Result<String, Problem>,
) -> Result<RemoteNeed, Problem> {
    let [written] = copy.sources.as_slice() else {
        return Err(unfit("must contain exactly one remote ADD source"));
    };
    let url = expand(written)?;
    let kind = match source_kind(true, &url)? {
        SourceKind::Http if copy.keep_git_dir.is_none() => RemoteKind::FileTime,
        SourceKind::Http | SourceKind::Git => {
            let repository = Repository::parse(&url)?;
            let kind = RemoteKind::CommitTime(repository.reference);
            return Ok(RemoteNeed { kind, url: repository.url, lines });
        }
        SourceKind::Path => {
            return Err(
                unfit("source must be a single HTTP(S) or Git ADD").blaming(written.as_str())
            );
        }
    };
    Ok(RemoteNeed { kind, url, lines })
}
