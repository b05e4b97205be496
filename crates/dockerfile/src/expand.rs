//! Words: quotes, escapes, variables.

use std::cell::Cell;

/// Longest result of one expansion in bytes: values that contain each other grow exponentially.
const MAX_RESULT_BYTES: usize = 1 << 20;
/// Deepest nesting of `${a:-${b:-…}}`.
const MAX_DEPTH: u32 = 50;

/// What the expansions of one Dockerfile may cost together, in bytes and steps. Each is bounded on
/// its own; without this a file of a few megabytes can ask for terabytes of them.
const MAX_TOTAL_COST: u64 = 1 << 25;

/// What is left of [`MAX_TOTAL_COST`].
#[derive(Debug)]
pub(crate) struct Budget(Cell<u64>);

impl Default for Budget {
    fn default() -> Self {
        Self(Cell::new(MAX_TOTAL_COST))
    }
}

impl Budget {
    /// What is said when nothing is left.
    pub(crate) const SPENT: &str = "the Dockerfile expands to too much";

    /// Takes away bytes or steps. Once spent it stays so.
    pub(crate) fn charge(&self, cost: usize) -> Result<(), String> {
        let left = self.0.get().checked_sub(cost as u64);
        self.0.set(left.unwrap_or(0));
        left.map(|_| ()).ok_or_else(|| Self::SPENT.to_owned())
    }
}

/// Where values come from; `None` is unset.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What an expansion does with quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quotes {
    /// They group and vanish.
    Process,
    /// They are text: heredoc bodies.
    Keep,
}

/// Expands one word.
pub(crate) fn expand(
    word: &str,
    escape: char,
    lookup: Lookup<'_>,
    budget: &Budget,
) -> Result<String, String> {
    run(word, escape, Quotes::Process, lookup, budget)
}

/// Expands the body of a heredoc: the escape character is a backslash, quotes are text.
pub(crate) fn expand_body(
    body: &str,
    lookup: Lookup<'_>,
    budget: &Budget,
) -> Result<String, String> {
    run(body, '\\', Quotes::Keep, lookup, budget)
}

fn run(
    word: &str,
    escape: char,
    quotes: Quotes,
    lookup: Lookup<'_>,
    budget: &Budget,
) -> Result<String, String> {
    let chars: Vec<char> = word.chars().collect();
    let mut expander = Expander { chars: &chars, at: 0, escape, quotes, lookup, budget, depth: 0 };
    let result = expander.until(None)?;
    budget.charge(word.len() + result.len())?;
    Ok(result)
}

struct Expander<'a> {
    chars: &'a [char],
    at: usize,
    escape: char,
    quotes: Quotes,
    lookup: Lookup<'a>,
    budget: &'a Budget,
    depth: u32,
}

impl Expander<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn value(&self, name: &str) -> Result<Option<String>, String> {
        let value = (self.lookup)(name);
        self.budget.charge(1 + value.as_ref().map_or(0, String::len))?;
        Ok(value)
    }

    fn next(&mut self) -> Option<char> {
        let char = self.peek()?;
        self.at += 1;
        Some(char)
    }

    /// Expands up to `stop`, which is left, or to the end.
    fn until(&mut self, stop: Option<char>) -> Result<String, String> {
        let mut result = String::new();
        while let Some(char) = self.peek() {
            if Some(char) == stop {
                return Ok(result);
            }
            self.at += 1;
            match char {
                '\'' if self.quotes == Quotes::Process => self.single_quoted(&mut result)?,
                '"' if self.quotes == Quotes::Process => self.double_quoted(&mut result)?,
                '$' => result.push_str(&self.variable()?),
                // At the very end it vanishes.
                _ if char == self.escape => result.extend(self.next()),
                _ => result.push(char),
            }
            if result.len() > MAX_RESULT_BYTES {
                return Err(format!("the expansion is longer than {MAX_RESULT_BYTES} bytes"));
            }
        }
        if stop == Some('}') {
            return Err("syntax error: missing '}'".to_owned());
        }
        Ok(result)
    }

    fn single_quoted(&mut self, result: &mut String) -> Result<(), String> {
        loop {
            match self.next() {
                Some('\'') => return Ok(()),
                Some(char) => result.push(char),
                None => return Err(unclosed("single")),
            }
        }
    }

    fn double_quoted(&mut self, result: &mut String) -> Result<(), String> {
        loop {
            match self.next() {
                Some('"') => return Ok(()),
                Some('$') => result.push_str(&self.variable()?),
                Some(char) if char == self.escape => match self.next() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        result.push(next);
                    }
                    Some(next) => result.extend([char, next]),
                    None => return Err(unclosed("double")),
                },
                Some(char) => result.push(char),
                None => return Err(unclosed("double")),
            }
        }
    }

    /// What stands behind a dollar sign.
    fn variable(&mut self) -> Result<String, String> {
        match self.peek() {
            Some('{') => {
                self.at += 1;
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err("the expansion is nested too deeply".to_owned());
                }
                let result = self.braced();
                self.depth -= 1;
                result
            }
            _ => {
                // Positional and special parameters are empty.
                if self.parameter().is_some() {
                    return Ok(String::new());
                }
                let name = self.name();
                if name.is_empty() {
                    return Ok("$".to_owned());
                }
                Ok(self.value(&name)?.unwrap_or_default())
            }
        }
    }

    /// A positional parameter, all its digits, or a special one.
    fn parameter(&mut self) -> Option<String> {
        let start = self.at;
        while self.peek().is_some_and(|char| char.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start && matches!(self.peek()?, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
            self.at += 1;
        }
        (self.at > start).then(|| self.chars[start..self.at].iter().collect())
    }

    fn name(&mut self) -> String {
        let start = self.at;
        while let Some(char) = self.peek() {
            let first = self.at == start;
            let fits =
                char == '_' || char.is_ascii_alphabetic() || (!first && char.is_ascii_digit());
            if !fits {
                break;
            }
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }

    fn braced(&mut self) -> Result<String, String> {
        let mut name = self.name();
        if name.is_empty() {
            name = match (self.parameter(), self.peek()) {
                (Some(parameter), _) => parameter,
                (None, Some(_)) => return Err("syntax error: bad substitution".to_owned()),
                (None, None) => return Err("syntax error: missing '}'".to_owned()),
            };
        }
        let value = self.value(&name)?;
        match self.next() {
            Some('}') => Ok(value.unwrap_or_default()),
            Some(':') => {
                let modifier = self.next().ok_or("syntax error: missing '}'")?;
                let problem = if value.is_some() { "empty" } else { "unset" };
                let value = value.filter(|value| !value.is_empty());
                self.modified(&name, value, modifier, problem)
            }
            Some(modifier @ ('-' | '+' | '?')) => self.modified(&name, value, modifier, "unset"),
            Some(side @ ('#' | '%')) => {
                let longest = self.peek() == Some(side);
                self.at += usize::from(longest);
                let pattern = self.pattern('}')?;
                self.close()?;
                trim(&value.unwrap_or_default(), &pattern, side, longest, self.budget)
            }
            Some('/') => {
                let all = self.peek() == Some('/');
                self.at += usize::from(all);
                let pattern = self.pattern('/')?;
                self.at += 1;
                let replacement: String = self.pattern('}')?.into_iter().collect();
                self.close()?;
                replace(&value.unwrap_or_default(), &pattern, &replacement, all, self.budget)
            }
            Some(other) => Err(format!("unsupported modifier ({other}) in substitution")),
            None => Err("syntax error: missing '}'".to_owned()),
        }
    }

    fn close(&mut self) -> Result<(), String> {
        match self.next() {
            Some('}') => Ok(()),
            _ => Err("syntax error: missing '}'".to_owned()),
        }
    }

    fn modified(
        &mut self,
        name: &str,
        value: Option<String>,
        modifier: char,
        problem: &str,
    ) -> Result<String, String> {
        if !['-', '+', '?'].contains(&modifier) {
            return Err(format!("unsupported modifier (:{modifier}) in substitution"));
        }
        let word = self.until(Some('}'))?;
        self.close()?;
        match (modifier, value) {
            ('-', value) => Ok(value.unwrap_or(word)),
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            (_, None) if word.is_empty() => Err(format!("{name}: is not allowed to be {problem}")),
            (_, None) => Err(format!("{name}: {word}")),
        }
    }

    /// A pattern, or what replaces it, up to `stop`, which is left; quotes vanish, escapes stay: for
    /// the matcher, and in the replacement as text.
    fn pattern(&mut self, stop: char) -> Result<Vec<char>, String> {
        let mut pattern = Vec::new();
        while let Some(char) = self.peek() {
            match char {
                _ if char == stop => return Ok(pattern),
                '$' => {
                    self.at += 1;
                    pattern.extend(self.variable()?.chars());
                    continue;
                }
                '\'' | '"' if self.quotes == Quotes::Process => {
                    self.at += 1;
                    let mut quoted = String::new();
                    match char {
                        '"' => self.double_quoted(&mut quoted)?,
                        _ => self.single_quoted(&mut quoted)?,
                    }
                    pattern.extend(quoted.chars());
                    continue;
                }
                '\\' => {
                    self.at += 1;
                    pattern.push('\\');
                    pattern.extend(self.peek());
                }
                _ => pattern.push(char),
            }
            self.at += 1;
        }
        Err(match stop {
            '/' => "syntax error: missing '/' in ${}".to_owned(),
            _ => "syntax error: missing '}'".to_owned(),
        })
    }
}

fn unclosed(quote: &str) -> String {
    format!("unexpected end of statement while looking for matching {quote}-quote")
}

/// Removes what matches from one end.
fn trim(
    value: &str,
    pattern: &[char],
    side: char,
    longest: bool,
    budget: &Budget,
) -> Result<String, String> {
    let mut chars: Vec<char> = value.chars().collect();
    let mut steps = steps(pattern);
    // From the right both are read backwards.
    if side == '%' {
        chars.reverse();
        steps.reverse();
    }
    let Some(length) = match_length(&steps, &chars, longest, budget)? else {
        return Ok(value.to_owned());
    };
    let mut rest = chars.split_off(length);
    if side == '%' {
        rest.reverse();
    }
    Ok(rest.into_iter().collect())
}

/// Replaces the first or every longest match.
fn replace(
    value: &str,
    pattern: &[char],
    replacement: &str,
    all: bool,
    budget: &Budget,
) -> Result<String, String> {
    let chars: Vec<char> = value.chars().collect();
    let steps = steps(pattern);
    let mut result = String::new();
    let mut at = 0;
    let mut done = steps.is_empty();
    while at < chars.len() {
        let length = if done { None } else { match_length(&steps, &chars[at..], true, budget)? };
        let length = length.filter(|length| *length > 0);
        match length {
            Some(length) => {
                result.push_str(replacement);
                at += length;
                done = !all;
            }
            None => {
                result.push(chars[at]);
                at += 1;
            }
        }
        if result.len() > MAX_RESULT_BYTES {
            return Err(format!("the expansion is longer than {MAX_RESULT_BYTES} bytes"));
        }
    }
    Ok(result)
}

/// One part of a shell pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GlobStep {
    /// `*`
    Many,
    /// `?`
    One,
    /// Itself.
    Just(char),
}

fn steps(pattern: &[char]) -> Vec<GlobStep> {
    let mut steps = Vec::new();
    let mut chars = pattern.iter().copied();
    while let Some(char) = chars.next() {
        steps.push(match char {
            '*' => GlobStep::Many,
            '?' => GlobStep::One,
            '\\' => GlobStep::Just(chars.next().unwrap_or('\\')),
            char => GlobStep::Just(char),
        });
    }
    steps
}

/// How much of the beginning of `text` the pattern matches: all places of the pattern that are
/// possible are followed at once, so that no pattern takes more than its length times the text's.
fn match_length(
    steps: &[GlobStep],
    text: &[char],
    longest: bool,
    budget: &Budget,
) -> Result<Option<usize>, String> {
    let mut places = vec![0];
    let mut found = None;
    for length in 0..=text.len() {
        let mut at = 0;
        // A star may also match nothing.
        while let Some(&place) = places.get(at) {
            if steps.get(place) == Some(&GlobStep::Many) && !places.contains(&(place + 1)) {
                places.push(place + 1);
            }
            at += 1;
        }
        budget.charge(4 * places.len() * places.len())?;
        if places.contains(&steps.len()) {
            found = Some(length);
            if !longest {
                break;
            }
        }
        let Some(char) = text.get(length) else { break };
        let mut next: Vec<usize> = Vec::new();
        for place in places {
            let moved = match steps.get(place) {
                Some(GlobStep::Many) => place,
                Some(GlobStep::One) => place + 1,
                Some(GlobStep::Just(wanted)) if wanted == char => place + 1,
                _ => continue,
            };
            if !next.contains(&moved) {
                next.push(moved);
            }
        }
        if next.is_empty() {
            break;
        }
        places = next;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "a" => Some("value".to_owned()),
            "empty" => Some(String::new()),
            "path" => Some("/usr/local/lib.tar.gz".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn words_expand_as_in_buildkit() {
        for (word, expected) in [
            ("$a", "value"),
            ("${a}x", "valuex"),
            ("$none.", "."),
            ("'$a'", "$a"),
            ("\"$a\"", "value"),
            ("\\$a", "$a"),
            ("\"\\$a \\x\"", "$a \\x"),
            ("a'b'\"c\"d", "abcd"),
            ("${none:-d}", "d"),
            ("${none-d}", "d"),
            ("${empty:-d}", "d"),
            ("${empty-d}", ""),
            ("${a:+x}", "x"),
            ("${empty:+x}", ""),
            ("${empty+x}", "x"),
            ("${none:-${a}}", "value"),
            ("${none:-${none:-'q r'}}", "q r"),
            ("${path#*/}", "usr/local/lib.tar.gz"),
            ("${path##*/}", "lib.tar.gz"),
            ("${path%.*}", "/usr/local/lib.tar"),
            ("${path%%.*}", "/usr/local/lib"),
            ("${path/l/L}", "/usr/Local/lib.tar.gz"),
            ("${path//l/L}", "/usr/LocaL/Lib.tar.gz"),
            ("${path//\\//-}", "-usr-local-lib.tar.gz"),
            ("$1$@$?", ""),
            ("$10x${12}", "x"),
            ("${path#'/usr'}", "/local/lib.tar.gz"),
            ("${path/*/x}", "x"),
            ("${path##nothing}", "/usr/local/lib.tar.gz"),
            ("${path/l/\\/x}", "/usr/\\/xocal/lib.tar.gz"),
            ("a\\", "a"),
            ("$", "$"),
            ("100%", "100%"),
            ("${a:?needed}", "value"),
        ] {
            assert_eq!(
                expand(word, '\\', &lookup, &Budget::default()).as_deref(),
                Ok(expected),
                "{word}"
            );
        }
        assert_eq!(
            expand("C:\\x\\$a", '`', &lookup, &Budget::default()).as_deref(),
            Ok("C:\\x\\value")
        );
        assert_eq!(
            expand_body("'$a' \\$a \"x\" \\\\ \\\n", &lookup, &Budget::default()).as_deref(),
            Ok("'value' $a \"x\" \\ \n")
        );
    }

    #[test]
    fn bad_substitutions_are_errors() {
        for (word, part) in [
            ("${}", "bad substitution"),
            ("${a", "missing '}'"),
            ("${a/x}", "missing '/' in ${}"),
            ("${a/x/y", "missing '}'"),
            ("${a:Y}", "unsupported modifier (:Y)"),
            ("${none:?must be set}", "none: must be set"),
            ("${none?}", "is not allowed to be unset"),
            ("${none:?}", "is not allowed to be unset"),
            ("${empty:?}", "is not allowed to be empty"),
            ("'x", "matching single-quote"),
            ("\"x", "matching double-quote"),
        ] {
            let error = expand(word, '\\', &lookup, &Budget::default()).unwrap_err();
            assert!(error.contains(part), "{word}: {error}");
        }
        let deep = "${x:-".repeat(10_000);
        assert!(expand(&deep, '\\', &lookup, &Budget::default()).is_err());
    }

    #[test]
    fn patterns_on_long_values_end_soon() {
        let value = "ab".repeat(100_000);
        let lookup = |_: &str| Some(value.clone());
        for word in ["${v//a*c/x}", "${v//a?*b*c*/x}", "${v%%*c*b*c}", "${v##*a*a*a*c}"] {
            let budget = Budget::default();
            // Either an answer or a refusal, but within the budget.
            if let Err(error) = expand(word, '\\', &lookup, &budget) {
                assert_eq!(error, Budget::SPENT, "{word}");
            }
        }
    }

    #[test]
    fn a_spent_budget_stays_spent() {
        let budget = Budget::default();
        assert!(budget.charge(usize::MAX).is_err());
        assert!(budget.charge(1).is_err());
    }
}
