//! Rules that need nothing but the text.

use std::collections::BTreeSet;

use common::outcome::LineRange;

use super::rule::{Finding, Rule};
use crate::source::Logical;

/// Names that no stage should have.
const RESERVED: [&str; 2] = ["scratch", "context"];

/// Parts of a name that hint at a secret, and parts that take the hint back.
const SECRET_WORDS: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];
const HARMLESS_WORDS: [&str; 3] = ["public", "file", "version"];

/// Looks at every instruction of a file, whatever else is wrong with it.
pub(crate) fn of_text(lines: &[Logical]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut names: BTreeSet<String> = BTreeSet::new();
    for line in lines {
        if line.has_empty_continuation {
            let last = LineRange { start: line.lines.end, end: line.lines.end };
            let message = "Empty continuation line".to_owned();
            findings.push(Finding::new(Rule::NoEmptyContinuation, last, message));
        }
        let words = words(&line.text);
        let keyword = words.first().copied().unwrap_or_default();
        match keyword.to_ascii_uppercase().as_str() {
            "MAINTAINER" => {
                let message = "Maintainer instruction is deprecated in favor of using label";
                let rule = Rule::MaintainerDeprecated;
                findings.push(Finding::new(rule, line.lines, message.to_owned()));
            }
            "FROM" => from(line, keyword, &words[1..], &mut names, &mut findings),
            "ARG" => {
                let names: Vec<&str> = words[1..]
                    .iter()
                    .map(|word| word.split('=').next().unwrap_or_default())
                    .collect();
                findings.extend(description(line, "ARG", &names));
            }
            _ => {}
        }
    }
    casing(lines, &mut findings);
    findings
}

/// The words of an instruction without its flags.
fn words(text: &str) -> Vec<&str> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let flags = words.iter().skip(1).take_while(|word| word.starts_with("--")).count();
    words.drain(1.min(words.len())..(1 + flags).min(words.len()));
    words
}

fn from(
    line: &Logical,
    keyword: &str,
    words: &[&str],
    names: &mut BTreeSet<String>,
    findings: &mut Vec<Finding>,
) {
    let [_, as_word, name] = words else { return };
    let mut find = |rule, message: String| findings.push(Finding::new(rule, line.lines, message));
    let lower = name.to_ascii_lowercase();
    if lower != *name {
        find(Rule::StageNameCasing, format!("Stage name '{name}' should be lowercase"));
    }
    let cased = match () {
        () if keyword == keyword.to_ascii_lowercase() => as_word.to_ascii_lowercase(),
        () if keyword == keyword.to_ascii_uppercase() => as_word.to_ascii_uppercase(),
        // Told by the rule on instructions.
        () => (*as_word).to_owned(),
    };
    if cased != *as_word {
        let message = format!("'{as_word}' and '{keyword}' keywords' casing do not match");
        find(Rule::FromAsCasing, message);
    }
    if RESERVED.contains(&lower.as_str()) {
        let message =
            format!("Stage name should not use the same name as reserved stage {lower:?}");
        find(Rule::ReservedStageName, message);
    }
    if names.contains(&lower) {
        let message = format!("Duplicate stage name {lower:?}, stage names should be unique");
        find(Rule::DuplicateStageName, message);
    }
    findings.extend(description(line, "FROM", &[lower.as_str()]));
    names.insert(lower);
}

/// A comment right above a stage or an argument that does not begin with its name.
fn description(line: &Logical, instruction: &str, names: &[&str]) -> Option<Finding> {
    let comment = line.comments.last()?;
    let first = comment.split(' ').next().unwrap_or_default();
    let example = match names {
        [] => return None,
        names if names.contains(&first) => return None,
        [name] => (*name).to_owned(),
        _ => "<arg_key>".to_owned(),
    };
    let message =
        format!("Comment for {instruction} should follow the format: `# {example} <description>`");
    Some(Finding::new(Rule::InvalidDefinitionDescription, line.lines, message))
}

/// All keywords should be written as most of them are.
fn casing(lines: &[Logical], findings: &mut Vec<Finding>) {
    let keywords: Vec<(&str, LineRange)> = lines
        .iter()
        .filter_map(|line| Some((line.text.split_whitespace().next()?, line.lines)))
        .collect();
    let count = |cased: fn(&str) -> String| {
        keywords.iter().filter(|(keyword, _)| cased(keyword) == *keyword).count()
    };
    let is_lower = count(str::to_ascii_lowercase) > count(str::to_ascii_uppercase);
    for (keyword, lines) in keywords {
        let (expected, name) = if is_lower {
            (keyword.to_ascii_lowercase(), "lowercase")
        } else {
            (keyword.to_ascii_uppercase(), "uppercase")
        };
        if expected != keyword {
            let message = format!(
                "Command '{keyword}' should match the case of the command majority ({name})"
            );
            findings.push(Finding::new(Rule::ConsistentInstructionCasing, lines, message));
        }
    }
}

/// Whether the name of a variable says that it holds a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
    has(&SECRET_WORDS) && !has(&HARMLESS_WORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_noticed_by_their_words() {
        for name in ["TOKEN", "api_key", "DATABASE_PASSWORD", "secret_message", "auth"] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["PUBLIC_KEY", "TOKEN_FILE", "KEYBOARD", "TOKENS", "AUTHOR", "auth_version"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
