//! Logical lines to typed instructions.

use common::outcome::LineRange;

use crate::diagnostic::Problem;
use crate::expand::{Budget, expand};
use crate::source::{Heredoc, Logical};

/// Every keyword.
pub(crate) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// An instruction with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spanned {
    pub(crate) instruction: Instruction,
    pub(crate) lines: LineRange,
    /// The instruction as written, on one line.
    pub(crate) text: String,
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CommandForm {
    /// JSON: no shell.
    Exec(Vec<String>),
    /// Text for the shell.
    Shell(String),
}

/// An instruction; nothing in it is expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Instruction {
    From { image: String, platform: Option<String>, name: Option<String> },
    Arg(Vec<(String, Option<String>)>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Run(Run),
    Copy(Copy),
    Cmd(CommandForm),
    Entrypoint(CommandForm),
    Workdir(String),
    User(String),
    Expose(Vec<String>),
    Volume(Vec<String>),
    StopSignal(String),
    Shell(Vec<String>),
    Healthcheck(Option<Health>),
    OnBuild(String),
    Maintainer(String),
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) command: CommandForm,
    pub(crate) heredocs: Vec<Heredoc>,
    pub(crate) network: Option<String>,
    /// Flags that only the executor of a later version knows.
    pub(crate) unsupported: Option<String>,
}

/// COPY and ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) is_add: bool,
    pub(crate) sources: Vec<String>,
    pub(crate) heredocs: Vec<Heredoc>,
    pub(crate) destination: String,
    pub(crate) from: Option<String>,
    pub(crate) chown: Option<String>,
    pub(crate) chmod: Option<String>,
    /// ADD: whether local archives are unpacked.
    pub(crate) unpack: bool,
    pub(crate) unsupported: Option<String>,
}

/// HEALTHCHECK CMD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) command: CommandForm,
    /// By flag name, in nanoseconds; `retries` is a number.
    pub(crate) options: Vec<(String, i64)>,
}

/// Parses one instruction.
pub(crate) fn parse(line: &Logical, escape: char) -> Result<Spanned, Problem> {
    let (keyword, rest) = split_keyword(&line.text);
    let upper = keyword.to_ascii_uppercase();
    if !KEYWORDS.contains(&upper.as_str()) {
        return Err(Problem::new("unknown-instruction", format!("unknown instruction: {keyword}"))
            .suggest(keyword, KEYWORDS));
    }
    let (flags, rest) = split_flags(&upper, rest, escape)?;
    let rest = rest.trim();
    let instruction = build(&upper, flags, rest, line, escape)?;
    let text = line.text.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(Spanned { instruction, lines: line.lines, text })
}

fn split_keyword(text: &str) -> (&str, &str) {
    text.split_once(char::is_whitespace).unwrap_or((text, ""))
}

fn build(
    keyword: &str,
    mut flags: Flags,
    rest: &str,
    line: &Logical,
    escape: char,
) -> Result<Instruction, Problem> {
    let one = |what: &str| {
        if rest.is_empty() {
            let message = format!("{what} requires exactly one argument");
            return Err(Problem::new("missing-argument", message));
        }
        Ok(rest.to_owned())
    };
    let instruction = match keyword {
        "FROM" => from(&mut flags, rest)?,
        "ARG" => Instruction::Arg(args(rest, escape)?),
        "ENV" => Instruction::Env(pairs(keyword, rest, escape)?),
        "LABEL" => Instruction::Label(pairs(keyword, rest, escape)?),
        "RUN" => Instruction::Run(run(&mut flags, rest, line)?),
        "COPY" | "ADD" => Instruction::Copy(copy(&mut flags, keyword, rest, line)?),
        "CMD" => Instruction::Cmd(command(rest)?),
        "ENTRYPOINT" => Instruction::Entrypoint(command(rest)?),
        "WORKDIR" => Instruction::Workdir(one("WORKDIR")?),
        "USER" => Instruction::User(one("USER")?),
        "EXPOSE" => Instruction::Expose(words(rest)),
        "VOLUME" => Instruction::Volume(list(keyword, rest)?),
        "STOPSIGNAL" => Instruction::StopSignal(one("STOPSIGNAL")?),
        "SHELL" => match command(rest)? {
            CommandForm::Exec(shell) if !shell.is_empty() => Instruction::Shell(shell),
            _ => {
                let message = "SHELL requires the arguments to be in JSON form";
                return Err(Problem::new("shell-form", message)
                    .with_hint("write it as SHELL [\"/bin/bash\", \"-c\"]"));
            }
        },
        "HEALTHCHECK" => Instruction::Healthcheck(health(&mut flags, rest)?),
        "ONBUILD" => Instruction::OnBuild(on_build(rest, line)?),
        _ => Instruction::Maintainer(rest.to_owned()),
    };
    flags.finish()?;
    Ok(instruction)
}

fn from(flags: &mut Flags, rest: &str) -> Result<Instruction, Problem> {
    let platform = flags.value("platform")?;
    let words = words(rest);
    let (image, name) = match &words[..] {
        [image] => (image, None),
        [image, r#as, name] if r#as.eq_ignore_ascii_case("as") => (image, Some(name)),
        _ => {
            let message = "FROM requires either one or three arguments";
            return Err(Problem::new("bad-from", message)
                .with_hint("write it as FROM image or FROM image AS name"));
        }
    };
    let name = name.map(|name| name.to_ascii_lowercase());
    if let Some(name) = &name {
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        let rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !first || !name.bytes().all(rest) {
            let message = format!(
                "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
            );
            return Err(Problem::new("bad-stage-name", message));
        }
    }
    Ok(Instruction::From { image: image.clone(), platform, name })
}

fn args(rest: &str, escape: char) -> Result<Vec<(String, Option<String>)>, Problem> {
    let words = quoted_words(rest, escape);
    if words.is_empty() {
        return Err(Problem::new("missing-argument", "ARG requires at least one argument"));
    }
    words
        .into_iter()
        .map(|word| {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word, None),
            };
            if name.is_empty() {
                return Err(Problem::new("blank-name", "ARG names can not be blank"));
            }
            Ok((name, value))
        })
        .collect()
}

fn pairs(keyword: &str, rest: &str, escape: char) -> Result<Vec<(String, String)>, Problem> {
    let words = quoted_words(rest, escape);
    let Some(first) = words.first() else {
        let message = format!("{keyword} requires at least one argument");
        return Err(Problem::new("missing-argument", message));
    };
    let blank = || Problem::new("blank-name", format!("{keyword} names can not be blank"));
    if !first.contains('=') {
        // The old form: one name, and the rest of the line.
        let (name, value) = split_keyword(rest);
        if value.trim().is_empty() {
            return Err(Problem::new(
                "missing-argument",
                format!("{keyword} must have two arguments"),
            )
            .with_hint(format!("write it as {keyword} {name}=value")));
        }
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(blank()),
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(Problem::new(
                "missing-equals",
                format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value"),
            )),
        })
        .collect()
}

fn run(flags: &mut Flags, rest: &str, line: &Logical) -> Result<Run, Problem> {
    let network = flags.value("network")?;
    if let Some(mode) = &network
        && !["default", "none", "host"].contains(&mode.as_str())
    {
        let message = format!("invalid network mode {mode:?}");
        return Err(
            Problem::new("bad-flag-value", message).suggest(mode, ["default", "none", "host"])
        );
    }
    if let Some(mode) = flags.value("security")?
        && mode != "sandbox"
    {
        if mode != "insecure" {
            let message = format!("security {mode:?} is not valid");
            return Err(
                Problem::new("bad-flag-value", message).suggest(&mode, ["sandbox", "insecure"])
            );
        }
        flags.flags.push(("security".to_owned(), Some(mode)));
    }
    let later = [("mount", Takes::Many), ("security", Takes::One), ("device", Takes::Many)];
    let unsupported = flags.unsupported("RUN", &later)?;
    let command = command(rest)?;
    Ok(Run { command, heredocs: line.heredocs.clone(), network, unsupported })
}

fn copy(flags: &mut Flags, keyword: &str, rest: &str, line: &Logical) -> Result<Copy, Problem> {
    let from = if keyword == "COPY" { flags.value("from")? } else { None };
    let (chown, chmod) = (flags.value("chown")?, flags.value("chmod")?);
    let is_add = keyword == "ADD";
    let unpack = is_add && flags.boolean("unpack")?.unwrap_or(true);
    let own = if is_add {
        [("checksum", Takes::One), ("keep-git-dir", Takes::YesNo)].as_slice()
    } else {
        [("parents", Takes::YesNo)].as_slice()
    };
    let later = [&[("link", Takes::YesNo), ("exclude", Takes::Many)], own].concat();
    let unsupported = flags.unsupported(keyword, &later)?;
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
            && !line.heredocs.is_empty()
    };
    if is_heredoc(&destination) {
        let message = format!("{keyword} cannot accept a heredoc as a destination");
        return Err(Problem::new("bad-destination", message));
    }
    let sources: Vec<String> = all.into_iter().filter(|word| !is_heredoc(word)).collect();
    for source in &sources {
        // What ADD takes is refused by name where the stage is needed.
        if !is_add {
            check_source(is_add, source)?;
        }
    }
    let heredocs = line.heredocs.clone();
    Ok(Copy { is_add, sources, heredocs, destination, from, chown, chmod, unpack, unsupported })
}

/// A source has to be a path; only ADD takes others, later.
pub(crate) fn check_source(is_add: bool, source: &str) -> Result<(), Problem> {
    let schemes = ["http://", "https://", "git://", "ssh://", "git@"];
    if !schemes.iter().any(|scheme| source.starts_with(scheme)) {
        return Ok(());
    }
    if is_add {
        return Err(Problem::unsupported("ADD of URLs and git repositories"));
    }
    let what = if source.starts_with("http") { "a URL" } else { "a git ref" };
    let message = format!("source can't be {what} for COPY: {source}");
    Err(Problem::new("bad-source", message).with_hint("ADD takes URLs"))
}

fn health(flags: &mut Flags, rest: &str) -> Result<Option<Health>, Problem> {
    let bad = |message: String| Problem::new("bad-healthcheck", message);
    let (kind, rest) = split_keyword(rest);
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if rest.trim().is_empty() => Ok(None),
        "NONE" => Err(bad("HEALTHCHECK NONE takes no arguments".to_owned())),
        "CMD" => {
            let mut options = Vec::new();
            for name in ["interval", "timeout", "start-period", "start-interval"] {
                let Some(text) = flags.value(name)? else { continue };
                let nanos = duration(&text)
                    .ok_or_else(|| bad(format!("time: invalid duration {text:?}")))?;
                if nanos != 0 && nanos < 1_000_000 {
                    return Err(bad(format!("Interval {name:?} cannot be less than 1ms")));
                }
                options.push((name.to_owned(), nanos));
            }
            if let Some(text) = flags.value("retries")? {
                let retries: i64 = text
                    .parse()
                    .map_err(|_| bad(format!("invalid number {text:?} for --retries")))?;
                if retries < 0 {
                    return Err(bad(format!("--retries cannot be negative ({retries})")));
                }
                options.push(("retries".to_owned(), retries));
            }
            let command = command(rest.trim())?;
            if matches!(&command, CommandForm::Shell(text) if text.is_empty()) {
                return Err(bad("Missing command after HEALTHCHECK CMD".to_owned()));
            }
            Ok(Some(Health { command, options }))
        }
        _ => Err(bad(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)"))),
    }
}

/// Go's durations: `1h2m3.5s`.
fn duration(text: &str) -> Option<i64> {
    let mut total = 0.0;
    let mut rest = text;
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let units = [
            ("ms", 1e6),
            ("us", 1e3),
            ("µs", 1e3),
            ("ns", 1.0),
            ("h", 3.6e12),
            ("m", 6e10),
            ("s", 1e9),
        ];
        let (unit, nanos) = units.iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total += number * nanos;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
    (total < 9.2e18).then_some(total as i64)
}

fn on_build(rest: &str, line: &Logical) -> Result<String, Problem> {
    let keyword = split_keyword(rest).0.to_ascii_uppercase();
    let bad = |message: &str| Err(Problem::new("bad-onbuild", message));
    match keyword.as_str() {
        "" => bad("ONBUILD requires at least one argument"),
        "ONBUILD" => bad("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        "FROM" | "MAINTAINER" => bad(&format!("{keyword} isn't allowed as an ONBUILD trigger")),
        _ => {
            let mut text = rest.to_owned();
            for heredoc in &line.heredocs {
                text.push('\n');
                text.push_str(heredoc.raw.trim_end_matches('\n'));
            }
            Ok(text)
        }
    }
}

fn list(keyword: &str, rest: &str) -> Result<Vec<String>, Problem> {
    let list = json_list(rest)?.unwrap_or_else(|| words(rest));
    if list.is_empty() {
        let message = format!("{keyword} requires at least one argument");
        return Err(Problem::new("missing-argument", message));
    }
    Ok(list)
}

fn command(rest: &str) -> Result<CommandForm, Problem> {
    Ok(match json_list(rest)? {
        Some(list) => CommandForm::Exec(list),
        None => CommandForm::Shell(rest.to_owned()),
    })
}

/// The strings of a JSON array; `None` where it is not valid JSON: then it is text.
fn json_list(rest: &str) -> Result<Option<Vec<String>>, Problem> {
    if !rest.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(rest) else { return Ok(None) };
    let strings: Option<Vec<String>> =
        values.into_iter().map(|value| value.as_str().map(str::to_owned)).collect();
    strings.map(Some).ok_or_else(|| {
        let message = "when using JSON array syntax, arrays must be comprised of strings only";
        Problem::new("bad-json", message)
    })
}

fn words(rest: &str) -> Vec<String> {
    rest.split_ascii_whitespace().map(str::to_owned).collect()
}

/// The first word with its quotes, as it stands.
fn first_word(rest: &str, escape: char) -> &str {
    let mut quote = None;
    let mut chars = rest.char_indices();
    while let Some((at, char)) = chars.next() {
        match quote {
            Some(open) if char == open => quote = None,
            Some('\'') => {}
            _ if char == escape => {
                chars.next();
            }
            None if char.is_whitespace() => return &rest[..at],
            None if char == '\'' || char == '"' => quote = Some(char),
            _ => {}
        }
    }
    rest
}

/// Words with their quotes; blanks inside quotes or behind the escape character do not end one.
fn quoted_words(rest: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = rest.chars();
    while let Some(char) = chars.next() {
        match quote {
            Some(open) => {
                word.push(char);
                if char == escape && open == '"' {
                    word.extend(chars.next());
                } else if char == open {
                    quote = None;
                }
            }
            None if char.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            None => {
                word.push(char);
                if char == '\'' || char == '"' {
                    quote = Some(char);
                } else if char == escape {
                    word.extend(chars.next());
                }
            }
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The `--name=value` words before the arguments.
#[derive(Debug, Default)]
struct Flags {
    keyword: String,
    flags: Vec<(String, Option<String>)>,
    known: Vec<&'static str>,
}

fn split_flags<'a>(
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

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    YesNo,
    One,
    Many,
}

impl Flags {
    /// The value of a flag that may be given once.
    fn value(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        self.known.push(name);
        let (found, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.flags).into_iter().partition(|(flag, _)| flag == name);
        self.flags = rest;
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some((_, Some(value))), None) => Ok(Some(value)),
            (Some((_, None)), None) => {
                Err(Problem::new("bad-flag", format!("missing a value on flag: --{name}")))
            }
            (Some(_), Some(_)) => {
                Err(Problem::new("duplicate-flag", format!("duplicate flag specified: --{name}")))
            }
        }
    }

    /// The value of a flag that is on or off and may be given once.
    fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, Problem> {
        for (_, value) in self.flags.iter_mut().filter(|(flag, _)| flag == name) {
            value.get_or_insert_with(|| "true".to_owned());
        }
        let Some(value) = self.value(name)? else { return Ok(None) };
        value.parse().map(Some).map_err(|_| {
            let message = format!("expecting boolean value for flag --{name}, not: {value}");
            Problem::new("bad-flag-value", message)
        })
    }

    /// The first of some flags that are known but not built yet; refused where the stage is needed.
    fn unsupported(
        &mut self,
        keyword: &str,
        names: &[(&'static str, Takes)],
    ) -> Result<Option<String>, Problem> {
        let mut found = None;
        for (name, takes) in names {
            let is_given = match takes {
                Takes::YesNo => self.boolean(name)? == Some(true),
                Takes::One => self.value(name)?.is_some(),
                Takes::Many => {
                    self.known.push(name);
                    let given = self.flags.iter().filter(|(flag, _)| flag == name);
                    if given.clone().any(|(_, value)| value.is_none()) {
                        let message = format!("missing a value on flag: --{name}");
                        return Err(Problem::new("bad-flag", message));
                    }
                    let count = given.count();
                    self.flags.retain(|(flag, _)| flag != name);
                    count > 0
                }
            };
            if is_given && found.is_none() {
                found = Some(format!("{keyword} --{name}"));
            }
        }
        Ok(found)
    }

    fn finish(self) -> Result<(), Problem> {
        match self.flags.first() {
            None => Ok(()),
            Some((flag, _)) => {
                let known = self.known;
                let problem = Problem::new(
                    "unknown-flag",
                    format!("unknown flag: --{flag} for {}", self.keyword),
                );
                Err(problem.suggest(flag, known))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Instruction, Problem> {
        let lines = LineRange { start: 1, end: 1 };
        let line = Logical { text: text.to_owned(), heredocs: Vec::new(), lines };
        parse(&line, '\\').map(|spanned| spanned.instruction)
    }

    #[test]
    fn forms_are_told_apart() {
        let exec =
            |list: &[&str]| CommandForm::Exec(list.iter().map(|s| (*s).to_owned()).collect());
        assert_eq!(parsed("CMD [\"a\", \"b\"]"), Ok(Instruction::Cmd(exec(&["a", "b"]))));
        assert_eq!(parsed("cmd ['a']"), Ok(Instruction::Cmd(CommandForm::Shell("['a']".into()))));
        assert_eq!(parsed("ENTRYPOINT []"), Ok(Instruction::Entrypoint(exec(&[]))));
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let env = Instruction::Env(vec![pair("a", "\"x y\""), pair("b", "c")]);
        assert_eq!(parsed("ENV a=\"x y\" b=c"), Ok(env));
        assert_eq!(parsed("ENV a b  c"), Ok(Instruction::Env(vec![pair("a", "b  c")])));
        assert_eq!(parsed("ARG --foo x"), Ok(Instruction::Arg(vec![("x".into(), None)])));
        let Ok(Instruction::Copy(copy)) = parsed("COPY --from=a --chown=1:2 x y /z/") else {
            panic!()
        };
        assert_eq!((copy.from.as_deref(), copy.chown.as_deref()), (Some("a"), Some("1:2")));
        assert_eq!((copy.sources.len(), copy.destination.as_str()), (2, "/z/"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, code, part) in [
            ("FORM a", "unknown-instruction", "unknown instruction: FORM"),
            ("COPY --chmd=1 a b", "unknown-flag", "--chmd"),
            ("COPY --from=a --from=b x y", "duplicate-flag", "--from"),
            ("COPY a", "missing-argument", "at least two arguments"),
            ("CMD [1]", "bad-json", "strings only"),
            ("FROM a b", "bad-from", "one or three"),
            ("FROM a AS 1b", "bad-stage-name", "1b"),
            ("ENV a", "missing-argument", "two arguments"),
            ("ENV a=b c", "missing-equals", "can't find ="),
            ("SHELL sh", "shell-form", "JSON"),
            ("RUN --network=nope x", "bad-flag-value", "nope"),
            ("HEALTHCHECK FOO", "bad-healthcheck", "try CMD"),
            ("ONBUILD FROM a", "bad-onbuild", "FROM isn't allowed"),
            ("COPY https://x/y /", "bad-source", "URL"),
            ("WORKDIR", "missing-argument", "WORKDIR"),
            ("COPY --link=maybe a b", "bad-flag-value", "expecting boolean value"),
            ("COPY --link --link a b", "duplicate-flag", "--link"),
            ("COPY --exclude a b", "bad-flag", "missing a value"),
            ("RUN --security=nope x", "bad-flag-value", "nope"),
            ("COPY git@host:a/b /", "bad-source", "git ref"),
        ] {
            let problem = parsed(text).unwrap_err();
            assert_eq!(problem.code, code, "{text}");
            assert!(problem.message.contains(part), "{text}: {}", problem.message);
        }
        assert_eq!(parsed("FORM a").unwrap_err().hint.as_deref(), Some("did you mean FROM?"));
        assert_eq!(
            parsed("COPY --chmd=1 a b").unwrap_err().hint.as_deref(),
            Some("did you mean chmod?")
        );
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("1m30s"), Some(90_000_000_000));
        assert_eq!(duration("1.5ms"), Some(1_500_000));
        assert_eq!(duration("0s"), Some(0));
        assert_eq!(duration("5"), None);
        assert_eq!(duration(""), None);
        assert_eq!(duration("99999999999h"), None);
    }
}
