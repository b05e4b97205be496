//! One logical line to one instruction.

use super::flags::{Flags, split_flags};
use super::health::health;
use super::kinds::{CommandForm, Instruction, KEYWORDS, Spanned};
use super::transfer::{copy, run};
use super::words::{quoted_words, split_keyword, words};
use crate::diagnostic::Problem;
use crate::source::Logical;

/// Parses one instruction.
pub(crate) fn parse(line: &Logical, escape: char) -> Result<Spanned, Problem> {
    let (keyword, rest) = split_keyword(&line.text);
    let upper = keyword.to_ascii_uppercase();
    if !KEYWORDS.contains(&upper.as_str()) {
        return Err(Problem::new("unknown-instruction", format!("unknown instruction: {keyword}"))
            .suggest(keyword, KEYWORDS)
            .blaming(keyword));
    }
    let (flags, rest) = split_flags(&upper, rest, escape)?;
    let rest = rest.trim();
    let instruction = build(&upper, flags, rest, line, escape)?;
    let text = line.text.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(Spanned { instruction, lines: line.lines, text })
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
            CommandForm::Exec(_) => {
                let message = "SHELL requires at least one argument";
                return Err(Problem::new("missing-argument", message));
            }
            CommandForm::Shell(_) => {
                let message = "SHELL requires the arguments to be in JSON form";
                return Err(Problem::new("shell-form", message)
                    .with_hint("write it as SHELL [\"/bin/bash\", \"-c\"]"));
            }
        },
        "HEALTHCHECK" => Instruction::Healthcheck(health(&mut flags, rest)?),
        "ONBUILD" => Instruction::OnBuild(on_build(rest, line)?),
        _ => Instruction::Maintainer(one("MAINTAINER")?),
    };
    flags.finish()?;
    Ok(instruction)
}

fn from(flags: &mut Flags, rest: &str) -> Result<Instruction, Problem> {
    let platform = flags.value("platform")?.filter(|platform| !platform.is_empty());
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
            return Err(Problem::new("bad-stage-name", message).blaming(name.as_str()));
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
            )
            .blaming(word)),
        })
        .collect()
}

pub(super) fn on_build(rest: &str, line: &Logical) -> Result<String, Problem> {
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

pub(super) fn list(keyword: &str, rest: &str) -> Result<Vec<String>, Problem> {
    let list = json_list(rest)?.unwrap_or_else(|| words(rest));
    if list.is_empty() {
        let message = format!("{keyword} requires at least one argument");
        return Err(Problem::new("missing-argument", message));
    }
    Ok(list)
}

pub(super) fn command(rest: &str) -> Result<CommandForm, Problem> {
    Ok(match json_list(rest)? {
        Some(list) => CommandForm::Exec(list),
        None => CommandForm::Shell(rest.to_owned()),
    })
}

/// The strings of a JSON array; `None` where it is not valid JSON: then it is text.
pub(super) fn json_list(rest: &str) -> Result<Option<Vec<String>>, Problem> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use common::outcome::LineRange;

    fn parsed(text: &str) -> Result<Instruction, Problem> {
        let lines = LineRange { start: 1, end: 1 };
        let text = text.to_owned();
        let line = Logical {
            text,
            heredocs: Vec::new(),
            lines,
            comments: Vec::new(),
            has_empty_continuation: false,
        };
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
        // A word ends at a vertical tab as well, and not at a blank that is no ASCII.
        let Ok(Instruction::Copy(copy)) = parsed("COPY --link=True x\u{b}y\u{a0}z /z/") else {
            panic!()
        };
        assert_eq!((copy.link, copy.sources), (true, vec!["x".into(), "y\u{a0}z".into()]));
        let env = Instruction::Env(vec![pair("a\u{a0}b", "c")]);
        assert_eq!(parsed("ENV a\u{a0}b c"), Ok(env));
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
            ("HEALTHCHECK", "bad-healthcheck", "at least one argument"),
            ("HEALTHCHECK CMD []", "bad-healthcheck", "Missing command"),
            ("HEALTHCHECK --retries=3000000000 CMD x", "bad-healthcheck", "--retries"),
            ("HEALTHCHECK --interval=-1s CMD x", "bad-healthcheck", "less than 1ms"),
            ("SHELL []", "missing-argument", "at least one argument"),
            ("MAINTAINER", "missing-argument", "MAINTAINER requires exactly one"),
            ("RUN\u{a0}x", "unknown-instruction", "RUN\u{a0}x"),
            ("COPY --link= a b", "bad-flag", "missing a value on flag: --link"),
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
            Some("did you mean --chmod?")
        );
    }
}
