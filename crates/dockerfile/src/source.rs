//! Bytes to logical lines: directives, continuations, comments, heredocs.

use common::Failure;
use common::outcome::{LineRange, Span};

use crate::diagnostic::Problem;

/// Longest Dockerfile in bytes.
const MAX_FILE_BYTES: usize = 4 << 20;
/// Longest physical line in bytes, as in BuildKit.
const MAX_LINE_BYTES: usize = 65_535;
/// Most physical lines.
const MAX_LINES: usize = 200_000;
/// Most instructions.
const MAX_INSTRUCTIONS: usize = 10_000;

/// The file, for messages.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) lines: Vec<String>,
    /// The escape character: a backslash or a backtick.
    pub(crate) escape: char,
    /// The value of `# check=`, and its line.
    pub(crate) check: Option<(String, LineRange)>,
}

/// A heredoc of an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heredoc {
    pub(crate) name: String,
    /// Whether variables in it are expanded: its delimiter was not quoted.
    pub(crate) expand: bool,
    pub(crate) content: String,
    /// The lines as they stand in the file, terminator included.
    pub(crate) raw: String,
}

/// One instruction: its continuation lines joined, its heredocs behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logical {
    pub(crate) text: String,
    pub(crate) heredocs: Vec<Heredoc>,
    pub(crate) lines: LineRange,
    /// The comment lines right above it, without their `#`.
    pub(crate) comments: Vec<String>,
    /// Whether a blank line stands inside a continuation.
    pub(crate) has_empty_continuation: bool,
}

impl Source {
    /// The text of some lines, at most eight: a long instruction is not shown whole.
    pub(crate) fn excerpt(&self, lines: LineRange) -> Option<String> {
        let from = (lines.start as usize).saturating_sub(1);
        let to = (lines.end as usize).min(from + 8).min(self.lines.len());
        self.lines.get(from..to).map(|lines| lines.join("\n"))
    }

    /// Where a word stands in some lines; rather as a word of its own than within another.
    pub(crate) fn span(&self, word: &str, lines: LineRange) -> Option<Span> {
        let from = (lines.start as usize).saturating_sub(1);
        let to = (lines.end as usize).min(self.lines.len());
        let is_part = |char: char| char.is_alphanumeric() || matches!(char, '_' | '-');
        let mut within = None;
        for (offset, line) in self.lines.get(from..to)?.iter().enumerate() {
            for (at, _) in line.match_indices(word).filter(|_| !word.is_empty()) {
                let count = |text: &str| u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
                let line_number = u32::try_from(from + offset + 1).unwrap_or(u32::MAX);
                let (column, length) = (count(&line[..at]).saturating_add(1), count(word));
                let span = Span { line: line_number, column, length };
                let before = line[..at].chars().next_back();
                let after = line[at + word.len()..].chars().next();
                if !before.is_some_and(is_part) && !after.is_some_and(is_part) {
                    return Some(span);
                }
                within.get_or_insert(span);
            }
        }
        within
    }

    /// A failure with the place in the file.
    pub(crate) fn failure(&self, problem: Problem, lines: LineRange) -> Failure {
        let word = problem.word.clone();
        let mut failure = problem.into_failure().at(lines);
        failure.span = word.and_then(|word| self.span(&word, lines));
        failure.file = Some(self.name.clone());
        failure.excerpt = self.excerpt(lines);
        failure
    }
}

/// Reads a file into logical lines.
pub(crate) fn read(name: &str, bytes: &[u8]) -> Result<(Source, Vec<Logical>), Failure> {
    let mut source = Source { name: name.to_owned(), lines: Vec::new(), escape: '\\', check: None };
    let whole = LineRange { start: 1, end: 1 };
    let fail = |source: &Source, code, message: String, line: usize| {
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        Err(source.failure(Problem::new(code, message), LineRange { start: line, end: line }))
    };
    if bytes.is_empty() {
        return Err(
            source.failure(Problem::new("empty-file", "the Dockerfile cannot be empty"), whole)
        );
    }
    if bytes.len() > MAX_FILE_BYTES {
        return fail(
            &source,
            "file-too-long",
            format!("the Dockerfile is longer than {MAX_FILE_BYTES} bytes"),
            1,
        );
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.len() > MAX_LINE_BYTES {
            let message =
                format!("dockerfile line greater than max allowed size of {MAX_LINE_BYTES}");
            return fail(&source, "line-too-long", message, number + 1);
        }
        if number >= MAX_LINES {
            let message = format!("the Dockerfile has more than {MAX_LINES} lines");
            source.lines.clear();
            return fail(&source, "file-too-long", message, number + 1);
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        source.lines.push(String::from_utf8_lossy(line).into_owned());
    }
    directives(&mut source)?;
    foreign_syntax(&source)?;
    let logical = join_lines(&source)?;
    check_text(&source, bytes, &logical)?;
    if logical.is_empty() {
        return Err(
            source.failure(Problem::new("no-instructions", "file with no instructions"), whole)
        );
    }
    Ok((source, logical))
}

/// Instructions are text: other bytes would be lost on the way to a file or a command, and a NUL
/// ends every argument and variable. In comments anything may stand.
fn check_text(source: &Source, bytes: &[u8], logical: &[Logical]) -> Result<(), Failure> {
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    for instruction in logical {
        for number in instruction.lines.start..=instruction.lines.end {
            let Some(line) = lines.get(number as usize - 1) else { continue };
            if line.trim_ascii_start().starts_with(b"#") && instruction.heredocs.is_empty() {
                continue;
            }
            let what = match std::str::from_utf8(line) {
                Err(_) => "is no UTF-8",
                Ok(text) if text.contains('\0') => "holds a NUL byte",
                Ok(_) => continue,
            };
            let problem = Problem::new("bad-text", format!("the line {what}"))
                .with_hint("save the Dockerfile as UTF-8; COPY files that hold other bytes");
            return Err(source.failure(problem, LineRange { start: number, end: number }));
        }
    }
    Ok(())
}

/// The `# key=value` lines at the very top.
fn directives(source: &mut Source) -> Result<(), Failure> {
    let mut seen: Vec<String> = Vec::new();
    let lines: Vec<String> = source
        .lines
        .iter()
        .take_while(|line| line.trim_start().starts_with('#'))
        .cloned()
        .collect();
    // Behind a `#!` line only the frontend can be named.
    let is_script = lines.first().is_some_and(|line| line.starts_with("#!"));
    for (number, line) in lines.iter().enumerate().skip(usize::from(is_script)) {
        let Some(rest) = line.trim_start().strip_prefix('#') else { return Ok(()) };
        let Some((key, value)) = rest.split_once('=') else { return Ok(()) };
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        let known = if is_script { &["syntax"][..] } else { &["syntax", "escape", "check"] };
        if !known.contains(&key.as_str()) || value.is_empty() {
            return Ok(());
        }
        let line = u32::try_from(number + 1).unwrap_or(u32::MAX);
        let lines = LineRange { start: line, end: line };
        if seen.contains(&key) {
            let message = format!("only one {key} parser directive can be used");
            return Err(source.failure(Problem::new("duplicate-directive", message), lines));
        }
        match key.as_str() {
            "escape" => match value {
                "\\" => source.escape = '\\',
                "`" => source.escape = '`',
                _ => {
                    let message = format!("invalid escape token {value:?} does not match ` or \\");
                    let problem = Problem::new("bad-directive", message).blaming(value);
                    return Err(source.failure(problem, lines));
                }
            },
            "syntax" if !is_own_frontend(value) => {
                return Err(source.failure(other_frontend(value), lines));
            }
            "check" => source.check = Some((value.to_owned(), lines)),
            _ => {}
        }
        seen.push(key);
    }
    Ok(())
}

fn other_frontend(name: &str) -> Problem {
    Problem::new("other-frontend", format!("the frontend {name:?} is not supported"))
        .with_hint("use docker/dockerfile:1, which is built in, or remove the line")
        .blaming(name)
}

/// The frontend of a file that is no Dockerfile: named behind `//`, or in a JSON document.
fn foreign_syntax(source: &Source) -> Result<(), Failure> {
    let skipped = usize::from(source.lines.first().is_some_and(|line| line.starts_with("#!")));
    let mut found = None;
    for (number, line) in source.lines.iter().enumerate().skip(skipped) {
        let comment = line.trim_start().strip_prefix("//").and_then(|rest| rest.split_once('='));
        let Some((key, value)) = comment else { break };
        if key.trim().eq_ignore_ascii_case("syntax") {
            found = Some((number, value.trim().to_owned()));
            break;
        }
    }
    let lines = source.lines.get(skipped..).unwrap_or_default();
    if found.is_none() && lines.first().is_some_and(|line| line.trim_start().starts_with('{')) {
        let document: Option<serde_json::Value> = serde_json::from_str(&lines.join("\n")).ok();
        let name = document.as_ref().and_then(|document| document.get("syntax")?.as_str());
        found = name.map(|name| (skipped, name.to_owned()));
    }
    match found {
        Some((number, name)) if !name.is_empty() && !is_own_frontend(&name) => {
            let line = u32::try_from(number + 1).unwrap_or(u32::MAX);
            Err(source.failure(other_frontend(&name), LineRange { start: line, end: line }))
        }
        _ => Ok(()),
    }
}

pub(crate) fn is_own_frontend(reference: &str) -> bool {
    let name = reference.split('@').next().unwrap_or("");
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let tag = match name {
        "docker/dockerfile" | "dockerfile.v0" => return true,
        _ => name.strip_prefix("docker/dockerfile:").unwrap_or(""),
    };
    !tag.contains("labs")
        && (tag == "1" || tag.starts_with("1.") || tag.starts_with("1-") || tag == "latest")
}

fn join_lines(source: &Source) -> Result<Vec<Logical>, Failure> {
    let mut result = Vec::new();
    let mut number = 0;
    let mut comments = Vec::new();
    while number < source.lines.len() {
        let first = source.lines[number].trim_start();
        let start = number;
        number += 1;
        if first.is_empty() {
            comments.clear();
            continue;
        }
        if let Some(comment) = first.strip_prefix('#') {
            comments.push(comment.trim().to_owned());
            continue;
        }
        let mut has_empty_continuation = false;
        let mut text = String::new();
        let mut line = first;
        loop {
            let Some(kept) = continued(line, source.escape) else {
                text.push_str(line);
                break;
            };
            text.push_str(kept);
            // Comments and blank lines in between vanish and do not end the instruction.
            let next = source.lines[number..]
                .iter()
                .position(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
            let Some(skipped) = next else {
                number = source.lines.len();
                break;
            };
            let between = &source.lines[number..number + skipped];
            has_empty_continuation |= between.iter().any(|line| line.trim().is_empty());
            line = &source.lines[number + skipped];
            number += skipped + 1;
        }
        let text = text.trim_end().to_owned();
        let mut heredocs = Vec::new();
        for delimiter in heredoc_delimiters(&text) {
            let (heredoc, next) = heredoc_body(source, number, delimiter).ok_or_else(|| {
                let line = u32::try_from(start + 1).unwrap_or(u32::MAX);
                let lines = LineRange { start: line, end: line };
                let problem = Problem::new("unterminated-heredoc", "unterminated heredoc");
                source.failure(problem.blaming("<<"), lines)
            })?;
            heredocs.push(heredoc);
            number = next;
        }
        let lines = LineRange {
            start: u32::try_from(start + 1).unwrap_or(u32::MAX),
            end: u32::try_from(number).unwrap_or(u32::MAX),
        };
        if result.len() == MAX_INSTRUCTIONS {
            let message = format!("more than {MAX_INSTRUCTIONS} instructions");
            return Err(source.failure(Problem::new("too-many-instructions", message), lines));
        }
        let comments = std::mem::take(&mut comments);
        result.push(Logical { text, heredocs, lines, comments, has_empty_continuation });
    }
    Ok(result)
}

/// What stands before the escape character at the end of a line that goes on.
fn continued(line: &str, escape: char) -> Option<&str> {
    let trimmed = line.trim_end_matches([' ', '\t']);
    let kept = trimmed.strip_suffix(escape)?;
    // An escape character before it makes it an ordinary one.
    if kept.ends_with(escape) { None } else { Some(kept) }
}

struct Delimiter {
    name: String,
    expand: bool,
    strip_tabs: bool,
}

/// The delimiters of the heredocs that an instruction announces.
fn heredoc_delimiters(text: &str) -> Vec<Delimiter> {
    let mut words = text.split_ascii_whitespace().map(str::to_ascii_uppercase);
    let mut keyword = words.next();
    while keyword.as_deref() == Some("ONBUILD") {
        keyword = words.next();
    }
    if !matches!(keyword.as_deref(), Some("RUN" | "COPY" | "ADD")) {
        return Vec::new();
    }
    let rest = text.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim_start());
    if rest.starts_with('[') && serde_json::from_str::<serde_json::Value>(rest).is_ok() {
        return Vec::new();
    }
    let chars: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut quote = None;
    let mut at = 0;
    while at < chars.len() {
        let char = chars[at];
        match quote {
            Some(open) if char == open => quote = None,
            Some(_) => {}
            None if char == '\\' => at += 1,
            None if char == '\'' || char == '"' => quote = Some(char),
            None if char == '<' && starts_word(&chars, at) => {
                if let Some((delimiter, end)) = delimiter_at(&chars, at) {
                    found.push(delimiter);
                    at = end;
                    continue;
                }
            }
            None => {}
        }
        at += 1;
    }
    found
}

/// Whether only digits stand between the last blank and `at`: a heredoc is a word of its own.
fn starts_word(chars: &[char], at: usize) -> bool {
    let before = chars[..at].iter().rev().find(|char| !char.is_ascii_digit());
    before.is_none_or(|char| char.is_whitespace())
}

/// Whether an argument is one heredoc and nothing else.
pub(crate) fn is_lone_heredoc(text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    let at = chars.iter().position(|char| !char.is_ascii_digit()).unwrap_or(0);
    chars.get(at) == Some(&'<')
        && delimiter_at(&chars, at).is_some_and(|(_, end)| end == chars.len())
}

fn delimiter_at(chars: &[char], at: usize) -> Option<(Delimiter, usize)> {
    let mut next = at + 1;
    if chars.get(next) != Some(&'<') || chars.get(next + 1) == Some(&'<') {
        return None;
    }
    next += 1;
    let strip_tabs = chars.get(next) == Some(&'-');
    next += usize::from(strip_tabs);
    while chars.get(next).is_some_and(|char| *char == ' ' || *char == '\t') {
        next += 1;
    }
    let mut name = String::new();
    let mut expand = true;
    let mut quote = None;
    while let Some(&char) = chars.get(next) {
        match quote {
            Some(open) if char == open => quote = None,
            Some(_) => name.push(char),
            None if char == '\'' || char == '"' => {
                quote = Some(char);
                expand = false;
            }
            None if char == '\\' => {
                next += 1;
                name.extend(chars.get(next));
            }
            None if char.is_whitespace() => break,
            None if char == '<' => return None,
            None => name.push(char),
        }
        next += 1;
    }
    (!name.is_empty() && quote.is_none()).then_some((Delimiter { name, expand, strip_tabs }, next))
}

fn heredoc_body(source: &Source, from: usize, delimiter: Delimiter) -> Option<(Heredoc, usize)> {
    let mut content = String::new();
    let mut raw = String::new();
    for (offset, line) in source.lines.get(from..)?.iter().enumerate() {
        raw.push_str(line);
        raw.push('\n');
        let line = if delimiter.strip_tabs { line.trim_start_matches('\t') } else { line };
        if line == delimiter.name {
            let heredoc = Heredoc { name: delimiter.name, expand: delimiter.expand, content, raw };
            return Some((heredoc, from + offset + 1));
        }
        content.push_str(line);
        content.push('\n');
    }
    None
}

/// Reads a trigger of a base image: one instruction, as text; `None` if it is not exactly one.
pub(crate) fn read_trigger(text: &str, escape: char) -> Option<Logical> {
    let lines = text.lines().map(str::to_owned).collect();
    let source = Source { name: "ONBUILD".to_owned(), lines, escape, check: None };
    let mut lines = join_lines(&source).ok()?;
    lines.pop().filter(|_| lines.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        let (_, lines) = read("Dockerfile", source.as_bytes()).unwrap();
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn continuations_skip_comments_and_blank_lines() {
        assert_eq!(texts("RUN a \\\n  # note\n\n  b\nRUN c"), ["RUN a   b", "RUN c"]);
        assert_eq!(texts("RUN a \\  \n b"), ["RUN a  b"]);
        assert_eq!(texts("RUN a\\\\\nRUN b"), ["RUN a\\\\", "RUN b"]);
        assert_eq!(texts("# escape=`\nRUN a `\n b\nRUN c\\"), ["RUN a  b", "RUN c\\"]);
        assert_eq!(texts("RUN a \\"), ["RUN a"]);
        assert_eq!(texts("\u{feff}FROM a\r\nRUN b\r\n"), ["FROM a", "RUN b"]);
    }

    #[test]
    fn heredocs_belong_to_their_instruction() {
        let text = "RUN <<EOF cat <<-'B' > x\none\nEOF\n\t\ttwo\n\tB\nRUN c";
        let (_, lines) = read("Dockerfile", text.as_bytes()).unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].lines, LineRange { start: 1, end: 5 });
        let [one, two] = &lines[0].heredocs[..] else { panic!("{lines:?}") };
        assert_eq!((one.name.as_str(), one.expand, one.content.as_str()), ("EOF", true, "one\n"));
        assert_eq!((two.name.as_str(), two.expand, two.content.as_str()), ("B", false, "two\n"));
    }

    #[test]
    fn what_only_looks_like_a_heredoc_is_none() {
        for text in [
            "RUN cat <<<x",
            "RUN echo '<<EOF'",
            "RUN echo $((1<<2))",
            "ENV A=<<EOF",
            "RUN [\"<<EOF\"]",
        ] {
            assert!(heredoc_delimiters(text).is_empty(), "{text}");
        }
        for (text, alone) in
            [("<<EOF", true), ("3<< 'E F'", true), ("<<A <<B", false), ("x", false)]
        {
            assert_eq!(is_lone_heredoc(text), alone, "{text}");
        }
        assert_eq!(heredoc_delimiters("RUN cat <<\\EOF")[0].name, "EOF");
        assert_eq!(heredoc_delimiters("RUN 3<< EOF cat").len(), 1);
        assert_eq!(heredoc_delimiters("ONBUILD RUN <<EOF").len(), 1);
    }

    #[test]
    fn bad_files_are_refused_with_their_line() {
        for (text, code, line) in [
            ("", "empty-file", 1),
            ("# only\n", "no-instructions", 1),
            ("# syntax=other/frontend\nFROM a", "other-frontend", 1),
            ("# escape=\\\n# escape=\\\nFROM a", "duplicate-directive", 2),
            ("# escape=x\nFROM a", "bad-directive", 1),
            ("FROM a\nRUN <<EOF\nx", "unterminated-heredoc", 2),
            ("#!/usr/bin/env x\n# syntax=other/frontend\nFROM a", "other-frontend", 2),
            ("// syntax=other/frontend\nx", "other-frontend", 1),
            ("#!/x\n// syntax = other/frontend\nx", "other-frontend", 2),
            ("{\n \"syntax\": \"other/frontend\"\n}", "other-frontend", 1),
            ("FROM a\n# c\nENV a=\0", "bad-text", 3),
        ] {
            let failure = read("Dockerfile", text.as_bytes()).unwrap_err();
            assert_eq!(
                (failure.code.as_str(), failure.lines.unwrap().start),
                (code, line),
                "{text:?}"
            );
        }
        let long = format!("FROM a\nRUN {}", "x".repeat(70_000));
        assert_eq!(read("Dockerfile", long.as_bytes()).unwrap_err().code, "line-too-long");
        assert!(read("Dockerfile", b"# syntax=docker/dockerfile:1.7\nFROM a").is_ok());
        assert!(read("Dockerfile", b"# caf\xe9\nFROM a\nRUN b \\\n# \xe9\n c").is_ok());
        for text in [&b"FROM a\nRUN echo \xe9"[..], b"FROM a\nCOPY <<E /\n# \xe9\nE"] {
            assert_eq!(read("Dockerfile", text).unwrap_err().code, "bad-text");
        }
    }
}
