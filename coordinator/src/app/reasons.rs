//! The difference between the keys of two runs of a step, in words. Pure.

use std::collections::BTreeMap;
use std::fmt;

use common::cache_key::{KeyPart, PARENT};
use common::tree::{Entry, EntryKind, Manifest, Owners, TreePath};
use store::{KeyedStage, KeyedStep};

use super::documents::StageDocument;

/// Longest value that is shown whole.
const MAX_VALUE: usize = 60;

/// Why a step ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// There is no build to compare it with.
    NeverBuilt,
    /// It was asked for.
    WithoutCache,
    /// The build before had no such step.
    NewStep,
    /// The instruction is another one.
    Instruction { before: String },
    /// What the stage starts from is another image.
    BaseMoved { name: String, before: String, after: String },
    /// The stage starts from something else.
    OtherBase,
    /// A step before it ran, or is another one.
    StepBefore,
    /// Files that it copies or mounts have changed.
    Files { source: String },
    /// The stage that it reads ran again, and made something else.
    Stage,
    /// Something else that counts has another value.
    Part { name: String, before: Option<String>, after: Option<String> },
    /// Everything is as before, but it had not ended well then.
    FailedBefore,
    /// Everything is as before, and the cache does not have it any more.
    Evicted,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverBuilt => f.write_str("never built"),
            Self::WithoutCache => f.write_str("asked for without cache"),
            Self::NewStep => f.write_str("new: the build before had no such step"),
            Self::Instruction { before } => write!(f, "instruction changed, it was: {before}"),
            Self::BaseMoved { name, before, after } => {
                write!(f, "base image moved: {name} {before} -> {after}")
            }
            Self::OtherBase => f.write_str("starts from something else"),
            Self::StepBefore => f.write_str("what it stands on is new"),
            Self::Files { source } => write!(f, "files changed: {source}"),
            Self::Stage => f.write_str("the stage that it reads is new, and made something else"),
            Self::Part { name, before: Some(before), after: Some(after) } => {
                write!(f, "{name} {before} -> {after}")
            }
            Self::Part { name, before: None, after } => {
                write!(f, "{name} is new: {}", after.as_deref().unwrap_or_default())
            }
            Self::Part { name, after: None, .. } => write!(f, "{name} is gone"),
            Self::FailedBefore => f.write_str("it has not ended well before"),
            Self::Evicted => f.write_str("evicted: the cache does not have it any more"),
        }
    }
}

/// Why a step ran, the nearest cause first.
pub(super) fn compare(
    (now, stage, step): (&StageDocument, &KeyedStage, &KeyedStep),
    (then, before, old): (Option<&StageDocument>, Option<&KeyedStage>, Option<&KeyedStep>),
) -> Vec<Cause> {
    let Some(before) = before else { return vec![Cause::NeverBuilt] };
    let Some(old) = old else { return vec![Cause::NewStep] };
    if step.key == old.key {
        let ended_well = matches!(old.state.as_str(), "done" | "cached");
        return vec![match (now.looks_up, ended_well) {
            (false, _) => Cause::WithoutCache,
            (true, true) => Cause::Evicted,
            (true, false) => Cause::FailedBefore,
        }];
    }
    let mut causes = parts(&step.parts, &old.parts, &old.display);
    if value(&step.parts, PARENT) != value(&old.parts, PARENT) {
        let is_first = |steps: &[KeyedStep], one: &KeyedStep| {
            steps.first().is_some_and(|first| first.number == one.number)
        };
        if is_first(&stage.steps, step) && is_first(&before.steps, old) {
            causes.extend(bases(now, then));
        } else {
            causes.push(Cause::StepBefore);
        }
    }
    causes
}

fn value<'a>(parts: &'a [KeyPart], name: &str) -> Option<&'a str> {
    parts.iter().find(|part| part.name == name).map(|part| part.value.as_str())
}

/// What differs between two lists of parts, besides what comes before the step.
fn parts(now: &[KeyPart], then: &[KeyPart], old_display: &str) -> Vec<Cause> {
    // What the instruction says; if that is another one, all its other parts are, too.
    let words = ["command", "sources", "destination", "workdir", "script"];
    if words.iter().any(|name| value(now, name) != value(then, name)) {
        return vec![Cause::Instruction { before: old_display.to_owned() }];
    }
    let mut causes = Vec::new();
    for part in now.iter().filter(|part| part.name != PARENT) {
        match value(then, &part.name) {
            Some(old) if old == part.value => {}
            old => causes.push(cause(part, old)),
        }
    }
    for part in then.iter().filter(|part| value(now, &part.name).is_none()) {
        let before = Some(short(&part.value));
        causes.push(Cause::Part { name: part.name.clone(), before, after: None });
    }
    causes
}

fn cause(part: &KeyPart, old: Option<&str>) -> Cause {
    if let Some(source) = part.name.strip_prefix("files ") {
        return Cause::Files { source: source.to_owned() };
    }
    let reads_stage = |text: &str| text.starts_with("stage ");
    if reads_stage(&part.value) && old.is_some_and(reads_stage) {
        return Cause::Stage;
    }
    let name = part.name.clone();
    Cause::Part { name, before: old.map(short), after: Some(short(&part.value)) }
}

/// A value for people: digests and long ones are cut.
fn short(value: &str) -> String {
    let words: Vec<String> = value
        .split(' ')
        .map(|word| match word.parse::<common::Digest>() {
            Ok(digest) => digest.short(),
            Err(_) => word.to_owned(),
        })
        .collect();
    let text = words.join(" ");
    if text.chars().count() <= MAX_VALUE {
        return text;
    }
    text.chars().take(MAX_VALUE - 3).chain("...".chars()).collect()
}

/// How what a stage starts from differs.
fn bases(now: &StageDocument, then: Option<&StageDocument>) -> Vec<Cause> {
    use common::plan::Base;
    let image = |document: &StageDocument| {
        let Base::Image(index) = document.stage.base else { return None };
        let found = document.images.iter().find(|(known, _)| *known == index.0);
        found.map(|(_, image)| (image.reference.clone(), image.digest))
    };
    match (image(now), then.and_then(image)) {
        (Some((name, after)), Some((old, before))) if name == old && before != after => {
            vec![Cause::BaseMoved { name, before: before.short(), after: after.short() }]
        }
        (None, None) if matches!(now.stage.base, Base::Stage(_)) => vec![Cause::StepBefore],
        _ => vec![Cause::OtherBase],
    }
}

/// The files below a source that two contexts have differently, with a sign: `+` new, `-` gone, `~`
/// changed.
pub(super) fn changed_files(now: &Manifest, then: &Manifest, source: &str) -> Vec<String> {
    let prefix: Vec<&str> = source
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .take_while(|part| !part.contains(['*', '?', '[']))
        .collect();
    let prefix = TreePath::new(prefix.join("/")).unwrap_or_default();
    let of = |manifest: &Manifest| -> BTreeMap<TreePath, common::Digest> {
        let within = |entry: &&Entry| {
            entry.path.is_within(&prefix) && !matches!(entry.kind, EntryKind::Directory)
        };
        let entries = manifest.entries.iter().filter(within);
        entries
            .map(|entry| (entry.path.clone(), manifest.digest_of([entry], Owners::Ignored)))
            .collect()
    };
    let (now, then) = (of(now), of(then));
    let mut changed = Vec::new();
    for (path, digest) in &now {
        match then.get(path) {
            Some(old) if old == digest => {}
            Some(_) => changed.push(format!("~ {}", path.display())),
            None => changed.push(format!("+ {}", path.display())),
        }
    }
    let gone = then.keys().filter(|path| !now.contains_key(*path));
    changed.extend(gone.map(|path| format!("- {}", path.display())));
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, value: &str) -> KeyPart {
        KeyPart { name: name.to_owned(), value: value.to_owned() }
    }

    fn words(now: &[KeyPart], then: &[KeyPart]) -> Vec<String> {
        parts(now, then, "RUN old").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_differs_is_said_in_words() {
        let common = [part(PARENT, "x"), part("command", "make")];
        let with = |more: &[KeyPart]| [&common[..], more].concat();
        assert_eq!(
            words(&with(&[part("variable VERSION", "2")]), &with(&[part("variable VERSION", "1")])),
            ["variable VERSION 1 -> 2"]
        );
        assert_eq!(
            words(&with(&[part("variable NEW", "2")]), &with(&[part("variable OLD", "1")])),
            ["variable NEW is new: 2", "variable OLD is gone"]
        );
        let digest = |text: &str| common::Digest::of(text.as_bytes());
        let stage = |text: &str| part("from", &format!("stage {}", digest(text)));
        assert_eq!(
            words(&with(&[stage("a")]), &with(&[stage("b")])),
            ["the stage that it reads is new, and made something else"]
        );
        let files = |text: &str| part("files /src", &digest(text).to_string());
        assert_eq!(words(&with(&[files("a")]), &with(&[files("b")])), ["files changed: /src"]);
        assert_eq!(
            words(&[part(PARENT, "x"), part("command", "new")], &common),
            ["instruction changed, it was: RUN old"]
        );
        assert_eq!(words(&common, &[part(PARENT, "y"), common[1].clone()]), Vec::<String>::new());
    }
}
