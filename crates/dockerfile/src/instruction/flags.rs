//! Flags: the `--name=value` words before the arguments.

use super::words::first_word;
use crate::diagnostic::{Problem, nearest};
use crate::expand::{Budget, expand};

/// The `--name=value` words before the arguments.
#[derive(Debug, Default)]
pub(super) struct Flags {
    keyword: String,
    flags: Vec<(String, Option<String>)>,
    known: Vec<&'static str>,
}

pub(super) fn split_flags<'a>(
    keyword: &str,
    rest: &'a str,
    escape: char,
) -> Result<(Flags, &'a str), Problem> {
    let mut flags = Flags { keyword: keyword.to_owned(), ..Flags::default() };
    let mut rest = rest.trim_start();
    while rest.starts_with("--") {
        let word = first_word(rest, escape);
        let after = rest[word.len()..].trim_start();
        if word == "--" {
            rest = after;
            break;
        }
        // Nothing is expanded yet: only quotes and escapes are taken away.
        let (none, budget) = (|_: &str| None, Budget::default());
        let plain = expand(&word.replace('$', "\u{0}"), escape, &none, &budget)
            .map_err(|message| Problem::new("bad-flag", message))?
            .replace('\u{0}', "$");
        let (name, value) = match plain[2..].split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (plain[2..].to_owned(), None),
        };
        // ARG and STOPSIGNAL take such words away without looking at them, as BuildKit does.
        if !matches!(keyword, "ARG" | "STOPSIGNAL") {
            flags.flags.push((name, value));
        }
        rest = after;
    }
    Ok((flags, rest))
}

impl Flags {
    /// The value of a flag that may be given once.
    pub(super) fn value(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        self.known.push(name);
        let (found, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.flags).into_iter().partition(|(flag, _)| flag == name);
        self.flags = rest;
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some((_, Some(value))), None) => Ok(Some(value)),
            (Some((_, None)), None) => {
                Err(Problem::new("bad-flag", format!("missing a value on flag: --{name}"))
                    .blaming(format!("--{name}")))
            }
            (Some(_), Some(_)) => {
                Err(Problem::new("duplicate-flag", format!("duplicate flag specified: --{name}"))
                    .blaming(format!("--{name}")))
            }
        }
    }

    /// The value of a flag that is on or off and may be given once.
    pub(super) fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, Problem> {
        for (_, value) in self.flags.iter_mut().filter(|(flag, _)| flag == name) {
            value.get_or_insert_with(|| "true".to_owned());
        }
        let Some(value) = self.value(name)? else { return Ok(None) };
        if value.is_empty() {
            return Err(Problem::new("bad-flag", format!("missing a value on flag: --{name}"))
                .blaming(format!("--{name}")));
        }
        let parsed = value.to_ascii_lowercase().parse().map(Some);
        parsed.map_err(|_| {
            let message = format!("expecting boolean value for flag --{name}, not: {value}");
            Problem::new("bad-flag-value", message).blaming(value)
        })
    }

    /// The values of a flag that may be given several times.
    pub(super) fn values(&mut self, name: &'static str) -> Result<Vec<String>, Problem> {
        self.known.push(name);
        let (found, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.flags).into_iter().partition(|(flag, _)| flag == name);
        self.flags = rest;
        let value = |(_, value): (String, Option<String>)| {
            let missing = || format!("missing a value on flag: --{name}");
            value.ok_or_else(|| Problem::new("bad-flag", missing()))
        };
        found.into_iter().map(value).collect()
    }

    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.flags.first() {
            None => Ok(()),
            Some((flag, _)) => {
                let known = self.known;
                let problem = Problem::new(
                    "unknown-flag",
                    format!("unknown flag: --{flag} for {}", self.keyword),
                );
                let problem = match nearest(flag, known) {
                    Some(near) => problem.with_hint(format!("did you mean --{near}?")),
                    None => problem,
                };
                Err(problem.blaming(format!("--{flag}")))
            }
        }
    }
}
