//! `.dockerignore`.
//!
//! One pattern a line; `#` in the first column begins a comment; `!` takes back; the last line that
//! matches wins. `*`, `?` and classes stay within one component, `**` is any number of components.
//! A pattern that matches a directory matches all below it.

use common::{Failure, FailureClass};

/// Most patterns of a file.
const MAX_PATTERNS: usize = 10_000;

/// A parsed ignore file.
#[derive(Debug, Clone, Default)]
pub struct IgnoreFile {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    negated: bool,
    parts: Vec<String>,
}

impl IgnoreFile {
    /// Parses a file.
    pub fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let text = String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
        let mut patterns = Vec::new();
        for line in text.lines() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let line = line.trim();
            let (negated, line) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let fail =
                |message: String| Failure::new(FailureClass::User, "bad-ignore-pattern", message);
            if line.is_empty() {
                return Err(fail("illegal exclusion pattern: \"!\"".to_owned()));
            }
            let parts = clean(line);
            // `.` and `/` name the context itself, which cannot be excluded.
            if parts.is_empty() {
                continue;
            }
            if parts.iter().any(|part| !is_well_formed(part)) {
                return Err(fail(format!("syntax error in pattern: {line:?}")));
            }
            patterns.push(Pattern { negated, parts });
            if patterns.len() > MAX_PATTERNS {
                return Err(fail(format!("more than {MAX_PATTERNS} patterns")));
            }
        }
        Ok(Self { patterns })
    }

    /// Whether the file or directory at `path` (relative, `/` between components) is left out.
    pub fn is_ignored(&self, path: &str) -> bool {
        let components: Vec<&str> = path.split('/').collect();
        let mut ignored = false;
        for pattern in &self.patterns {
            if pattern.negated == ignored
                && (1..=components.len()).any(|end| matches(&pattern.parts, &components[..end]))
            {
                ignored = !pattern.negated;
            }
        }
        ignored
    }

    /// Whether something below an ignored directory may be taken back by a `!` line.
    pub fn may_include_below(&self, directory: &str) -> bool {
        let components: Vec<&str> = directory.split('/').collect();
        self.patterns
            .iter()
            .any(|pattern| pattern.negated && could_match_below(&pattern.parts, &components))
    }
}

/// The components of a cleaned path: no empty ones, no `.`, `..` resolved.
fn clean(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part.to_owned()),
        }
    }
    parts
}

fn is_well_formed(part: &str) -> bool {
    let mut chars = part.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\\' if chars.next().is_none() => return false,
            '[' => {
                let mut closed = false;
                let mut length = 0;
                while let Some(char) = chars.next() {
                    match char {
                        ']' if length > 0 => {
                            closed = true;
                            break;
                        }
                        '\\' => {
                            chars.next();
                        }
                        _ => {}
                    }
                    length += usize::from(!(length == 0 && char == '^'));
                }
                if !closed {
                    return false;
                }
            }
            _ => {}
        }
    }
    true
}

fn matches(pattern: &[String], path: &[&str]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((first, rest)) if first == "**" => {
            (0..=path.len()).any(|skip| matches(rest, &path[skip..]))
        }
        Some((first, rest)) => path
            .split_first()
            .is_some_and(|(name, below)| component(first, name) && matches(rest, below)),
    }
}

/// Whether the pattern could match something below the directory.
fn could_match_below(pattern: &[String], directory: &[&str]) -> bool {
    match (pattern.split_first(), directory.split_first()) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some((first, _)), _) if first == "**" => true,
        (Some((first, rest)), Some((name, below))) => {
            component(first, name) && could_match_below(rest, below)
        }
    }
}

/// One component: `*`, `?`, `[…]`, `\x`; `**` inside a component is `*`.
pub(crate) fn component(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&'*') {
            star = Some((p + 1, n));
            p += 1;
            continue;
        }
        if n == name.len() {
            return p == pattern.len();
        }
        match (one(&pattern[p..], name[n]), star) {
            (Some(used), _) => {
                p += used;
                n += 1;
            }
            (None, Some((after, swallowed))) => {
                star = Some((after, swallowed + 1));
                p = after;
                n = swallowed + 1;
            }
            (None, None) => return false,
        }
    }
}

/// Matches one character; returns how much of the pattern that took.
fn one(pattern: &[char], char: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['\\', escaped, ..] => (*escaped == char).then_some(2),
        ['[', rest @ ..] => {
            let negated = rest.first() == Some(&'^');
            let mut at = usize::from(negated);
            let mut found = false;
            let start = at;
            while at < rest.len() && (rest[at] != ']' || at == start) {
                let take = |at: usize| match rest.get(at)? {
                    '\\' => Some((*rest.get(at + 1)?, 2)),
                    other => Some((*other, 1)),
                };
                let (low, used) = take(at)?;
                at += used;
                let mut high = low;
                if rest.get(at) == Some(&'-') && rest.get(at + 1).is_some_and(|next| *next != ']') {
                    let (end, used) = take(at + 1)?;
                    high = end;
                    at += 1 + used;
                }
                found |= (low..=high).contains(&char);
            }
            (found != negated && at < rest.len()).then_some(at + 2)
        }
        [literal, ..] => (*literal == char).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_matching_line_wins() {
        let check = |file: &str, path: &str, ignored: bool| {
            let parsed = IgnoreFile::parse(file.as_bytes()).unwrap();
            assert_eq!(parsed.is_ignored(path), ignored, "{file:?} {path}");
        };
        check("*.md", "README.md", true);
        check("*.md", "docs/README.md", false);
        check("**/*.md", "docs/README.md", true);
        check("**/*.md", "README.md", true);
        check("docs", "docs/a/b", true);
        check("/docs/", "docs/a", true);
        check("*\n!keep", "keep", false);
        check("*\n!keep", "other", true);
        check("*\n!keep/this", "keep/this", false);
        check("*\n!keep/this", "keep/that", true);
        check("!a\na", "a", true);
        check("# a\n\n a ", "a", true);
        check("a/**/z", "a/z", true);
        check("a/**/z", "a/b/c/z", true);
        check("a/../b", "b", true);
        check("[ab]?", "ax", true);
        check("[^ab]?", "ax", false);
        check(".", "a", false);
        check("node_modules\n!node_modules/keep", "node_modules/keep/x", false);
    }

    #[test]
    fn a_walker_knows_where_to_go_on() {
        let file = IgnoreFile::parse(b"*\n!a/b/c\n!**/deep").unwrap();
        assert!(file.may_include_below("a"));
        assert!(file.may_include_below("x"));
        let file = IgnoreFile::parse(b"*\n!a/b/c").unwrap();
        assert!(file.may_include_below("a/b"));
        assert!(!file.may_include_below("x"));
        assert!(!file.may_include_below("a/b/c/d"));
    }

    #[test]
    fn bad_patterns_are_errors() {
        for file in ["!", "a[", "a\\", "[^"] {
            assert!(IgnoreFile::parse(file.as_bytes()).is_err(), "{file}");
        }
    }
}
