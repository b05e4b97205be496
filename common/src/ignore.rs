//! `.dockerignore`.
//!
//! One pattern a line; `#` in the first column begins a comment; `!` takes back; the last line that
//! matches wins. `*` and `?` stay within one component, `[…]` is one character, `**` is any number
//! of components, also where it is glued to other text: `**.log` is every path that ends so.
//! A pattern that matches a directory matches all below it.

use crate::{Failure, FailureClass};

/// Most patterns of a file.
const MAX_PATTERNS: usize = 10_000;

/// A parsed ignore file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoreFile {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    negated: bool,
    tokens: Vec<Token>,
    /// The pattern as text where it has no wildcard: most have none, and comparing is quick.
    literal: Option<String>,
}

/// One part of a pattern. A match follows every possible place of it at once, so that its time
/// grows with the product of the lengths and no pattern is slow.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// Itself.
    Just(char),
    /// `?`
    One,
    /// `*`
    Many,
    /// `[…]`
    Class { negated: bool, ranges: Vec<(char, char)> },
    /// `**` before other text: nothing, or the [`Token::Directories`] that follow.
    MaybeDirectories,
    /// Anything that ends with a slash; always behind [`Token::MaybeDirectories`].
    Directories,
    /// `**` at the end: anything.
    Anything,
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
            let cleaned = clean(line);
            // `.` and `/` name the context itself, which cannot be excluded.
            if cleaned.is_empty() {
                continue;
            }
            let Some(tokens) = tokens(&cleaned) else {
                return Err(fail(format!("syntax error in pattern: {line:?}")));
            };
            let plain = |token: &Token| match token {
                Token::Just(char) => Some(*char),
                _ => None,
            };
            let literal = tokens.iter().map(plain).collect();
            patterns.push(Pattern { negated, tokens, literal });
            if patterns.len() > MAX_PATTERNS {
                return Err(fail(format!("more than {MAX_PATTERNS} patterns")));
            }
        }
        Ok(Self { patterns })
    }

    /// Whether the file or directory at `path` (relative, `/` between components) is left out.
    pub fn is_ignored(&self, path: &str) -> bool {
        let mut ignored = false;
        for pattern in &self.patterns {
            if pattern.negated == ignored && pattern.run(path).0 {
                ignored = !pattern.negated;
            }
        }
        ignored
    }

    /// Whether a line takes something back.
    pub fn has_negations(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.negated)
    }

    /// Whether every name is left out: `*`, `**` and the like.
    pub fn leaves_out_everything(&self) -> bool {
        self.is_ignored("\u{1}\u{2}")
    }

    /// Whether something below an ignored directory may be taken back by a `!` line.
    pub fn may_include_below(&self, directory: &str) -> bool {
        let below = format!("{directory}/");
        self.patterns.iter().any(|pattern| pattern.negated && pattern.run(&below).1)
    }
}

impl Pattern {
    /// Whether the path or a directory that holds it matches, and whether a path could that goes on
    /// where this one ends.
    fn run(&self, path: &str) -> (bool, bool) {
        if let Some(literal) = &self.literal {
            let rest = path.strip_prefix(literal.as_str());
            let matches = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            return (matches, literal.starts_with(path));
        }
        let end = self.tokens.len();
        let mut places = vec![false; end + 1];
        places[0] = true;
        self.skip(&mut places);
        for char in path.chars() {
            if char == '/' && places[end] {
                return (true, false);
            }
            let mut next = vec![false; end + 1];
            for (place, token) in self.tokens.iter().enumerate() {
                if !places[place] {
                    continue;
                }
                match token {
                    Token::Just(wanted) => next[place + 1] |= *wanted == char,
                    Token::One => next[place + 1] |= char != '/',
                    Token::Many => next[place] |= char != '/',
                    Token::Class { negated, ranges } => {
                        let found = ranges.iter().any(|(low, high)| (low..=high).contains(&&char));
                        next[place + 1] |= found != *negated;
                    }
                    Token::MaybeDirectories => {}
                    Token::Directories => {
                        next[place] = true;
                        next[place + 1] |= char == '/';
                    }
                    Token::Anything => next[place] = true,
                }
            }
            places = next;
            self.skip(&mut places);
            if !places.contains(&true) {
                return (false, false);
            }
        }
        (places[end], true)
    }

    /// Adds the places that are reached without a character.
    fn skip(&self, places: &mut [bool]) {
        for (place, token) in self.tokens.iter().enumerate() {
            if places[place] {
                match token {
                    Token::Many | Token::Anything => places[place + 1] = true,
                    Token::MaybeDirectories => {
                        places[place + 1] = true;
                        places[place + 2] = true;
                    }
                    _ => {}
                }
            }
        }
    }
}

/// The tokens of a cleaned pattern; `None` where a class or an escape is not complete.
fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let chars: Vec<char> = pattern.chars().collect();
    let is_wild = |char: &char| matches!(char, '*' | '?' | '[' | '\\');
    // `**` and then plain text: every path that ends so, whatever stands before it.
    if let Some(suffix) = pattern.strip_prefix("**")
        && !suffix.starts_with('/')
        && !chars[2..].iter().any(is_wild)
    {
        let rest = suffix.chars().map(Token::Just);
        return Some([Token::Anything].into_iter().chain(rest).collect());
    }
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&char) = chars.get(at) {
        at += 1;
        match char {
            '*' if chars.get(at) == Some(&'*') => {
                at += 1;
                at += usize::from(chars.get(at) == Some(&'/'));
                if at == chars.len() {
                    tokens.push(Token::Anything);
                } else {
                    tokens.extend([Token::MaybeDirectories, Token::Directories]);
                }
            }
            '*' => tokens.push(Token::Many),
            '?' => tokens.push(Token::One),
            '[' => tokens.push(class(&chars, &mut at)?),
            '\\' => {
                tokens.push(Token::Just(*chars.get(at)?));
                at += 1;
            }
            char => tokens.push(Token::Just(char)),
        }
    }
    Some(tokens)
}

/// A class, from behind its opening bracket.
fn class(chars: &[char], at: &mut usize) -> Option<Token> {
    let negated = chars.get(*at) == Some(&'^');
    *at += usize::from(negated);
    let mut ranges = Vec::new();
    let member = |at: &mut usize| {
        let mut char = *chars.get(*at)?;
        match char {
            '-' | ']' => return None,
            '\\' => {
                *at += 1;
                char = *chars.get(*at)?;
            }
            _ => {}
        }
        *at += 1;
        Some(char)
    };
    while ranges.is_empty() || chars.get(*at)? != &']' {
        let low = member(at)?;
        let mut high = low;
        if chars.get(*at)? == &'-' {
            *at += 1;
            high = member(at)?;
        }
        ranges.push((low, high));
    }
    *at += 1;
    Some(Token::Class { negated, ranges })
}

/// A cleaned pattern: no empty component, no `.`, `..` resolved where something stands before it,
/// no slash at either end. Empty for the context itself.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            // Above the context nothing can match.
            ".." if !rooted => parts.push(".."),
            ".." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// One component: `*`, `?`, `[…]`, `\x`; `**` inside a component is `*`.
pub fn component(pattern: &str, name: &str) -> bool {
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
        check("[a-c]x", "bx", true);
        check("a**z", "az", true);
        check("a**z", "ab/z", true);
        check("a**z", "abz", false);
        check("a**", "abc/d", true);
        check("a/**", "a", false);
        check("a/**", "a/b", true);
        check("**.log", "x/y.log", true);
        check("**.log", "y.log", true);
        check("**.log", "y.logs", false);
        check("**/y", "a/b/y/z", true);
        check("**/y", "xy", false);
        check("**", "a/b", true);
        check("**/**", "a", true);
        check("../a", "a", false);
        check("/../a", "a", true);
        check("a\\*", "a*", true);
        check("a\\*", "ab", false);
        check("dir/*\n!dir/a*/keep", "dir/ab/keep", false);
        check("dir/*\n!dir/a*/keep", "dir/ab/drop", true);
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
        let file = IgnoreFile::parse(b"*\n!a**z").unwrap();
        assert!(file.may_include_below("ab/c"));
        assert!(!file.may_include_below("b"));
    }

    #[test]
    fn bad_patterns_are_errors() {
        for file in ["!", "a[", "a\\", "[^", "[]a]", "[a-]", "[-a]"] {
            assert!(IgnoreFile::parse(file.as_bytes()).is_err(), "{file}");
        }
    }

    #[test]
    fn no_pattern_is_slow() {
        let file = IgnoreFile::parse(format!("{}z", "**/a".repeat(300)).as_bytes()).unwrap();
        assert!(!file.is_ignored(&"a/b/".repeat(500)));
        let file = IgnoreFile::parse(format!("{}z", "*a".repeat(100)).as_bytes()).unwrap();
        assert!(!file.is_ignored(&"a".repeat(250)));
    }
}
