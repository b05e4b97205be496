//! Rules on FROM lines, of all stages.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use common::Platform;

use super::rule::{Finding, Rule};
use crate::diagnostic::nearest;
use crate::instruction::Instruction;
use crate::plan::Global;
use crate::stages::Stage;
use crate::{Dockerfile, Options};

/// Names of the predefined arguments.
const PREDEFINED: [&str; 11] = [
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
];

/// Looks at every FROM.
pub(crate) fn of_froms(file: &Dockerfile, options: &Options, global: &Global<'_>) -> Vec<Finding> {
    let mut declared: Vec<&str> = PREDEFINED.to_vec();
    for spanned in &file.global_args {
        if let Instruction::Arg(args) = &spanned.instruction {
            declared.extend(args.iter().map(|(name, _)| name.as_str()));
        }
    }
    let mut findings = Vec::new();
    for stage in &file.stages {
        for word in [Some(&stage.image), stage.platform.as_ref()].into_iter().flatten() {
            undeclared(stage, word, global, &declared, &mut findings);
        }
        if let Some(word) = &stage.platform {
            platform(stage, word, global, &mut findings);
        }
    }
    let defaults = Options { build_args: BTreeMap::new(), ..options.clone() };
    if let Ok(global) = Global::new(file, &defaults) {
        for stage in &file.stages {
            let image = global.expand(&stage.image);
            if image.is_ok_and(|image| !is_reference(&image)) {
                let message = format!(
                    "Default value for ARG {} results in empty or invalid base image name",
                    stage.image
                );
                findings.push(Finding::new(Rule::InvalidDefaultArgInFrom, stage.lines, message));
            }
        }
    }
    findings
}

/// The variables of a word: those that have a value, and the others.
fn used(word: &str, global: &Global<'_>) -> (BTreeSet<String>, BTreeSet<String>) {
    let (matched, unmatched) = (RefCell::default(), RefCell::default());
    let _ = global.expand_with(word, &|name| {
        let value = global.get(name);
        let set: &RefCell<BTreeSet<String>> = if value.is_some() { &matched } else { &unmatched };
        set.borrow_mut().insert(name.to_owned());
        value
    });
    (matched.into_inner(), unmatched.into_inner())
}

fn undeclared(
    stage: &Stage,
    word: &str,
    global: &Global<'_>,
    declared: &[&str],
    findings: &mut Vec<Finding>,
) {
    let (_, unmatched) = used(word, global);
    for name in unmatched.iter().filter(|name| !declared.contains(&name.as_str())) {
        let mut message = format!("FROM argument '{name}' is not declared");
        if let Some(near) = nearest(name, declared.iter().copied()) {
            message.push_str(&format!(" (did you mean {near}?)"));
        }
        findings.push(Finding::new(Rule::UndefinedArgInFrom, stage.lines, message));
    }
}

fn platform(stage: &Stage, word: &str, global: &Global<'_>, findings: &mut Vec<Finding>) {
    let (matched, unmatched) = used(word, global);
    let Ok(value) = global.expand(word) else { return };
    if matched.is_empty() && unmatched.is_empty() {
        let Ok(platform) = value.parse::<Platform>() else { return };
        let name = stage.name.as_deref().unwrap_or("");
        if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
            let message = format!("FROM --platform flag should not use constant value {value:?}");
            let rule = Rule::FromPlatformFlagConstDisallowed;
            findings.push(Finding::new(rule, stage.lines, message));
        }
    } else if unmatched.is_empty()
        && matched.iter().eq(["TARGETPLATFORM"])
        && global.get("TARGETPLATFORM").is_some_and(|target| target == value)
    {
        let message = format!(
            "Setting platform to predefined {word} in FROM is redundant as this is the default behavior"
        );
        findings.push(Finding::new(Rule::RedundantTargetPlatform, stage.lines, message));
    }
}

/// Whether a text could be a reference to an image or the name of a stage (distribution/reference).
fn is_reference(text: &str) -> bool {
    let (text, digest) = text.split_once('@').map_or((text, None), |(t, d)| (t, Some(d)));
    let (name, tag) = match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    };
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_word = |text: &str| {
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        edge(text.bytes().next()) && edge(text.bytes().last()) && text.bytes().all(word)
    };
    let tag_fits = |tag: &str| {
        let first = tag.bytes().next();
        first.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && tag.bytes().all(word)
    };
    let mut parts = name.split('/');
    let has_host = name.contains('/');
    let host = |part: &str| {
        let (host, port) = part.split_once(':').unwrap_or((part, "0"));
        is_word(host) && port.bytes().all(|byte| byte.is_ascii_digit())
    };
    let first = parts.next().unwrap_or_default();
    let first_fits = if has_host { host(first) } else { is_word(first) };
    first_fits
        && parts.all(is_word)
        && tag.is_none_or(tag_fits)
        && digest.is_none_or(|digest| digest.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_from_other_texts() {
        for text in ["alpine", "alpine:3", "a.b:5000/c/d_e:x", "build-stage", "a@sha256:00"] {
            assert!(is_reference(text), "{text}");
        }
        for text in ["", "alpine:", ":3", "a//b", "a/b:", "-a", "a b"] {
            assert!(!is_reference(text), "{text}");
        }
    }
}
