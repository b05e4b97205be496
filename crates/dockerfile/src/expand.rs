//! Words: quotes, escapes, variables.

/// Longest result of one expansion in bytes: values that contain each other grow exponentially.
const MAX_RESULT_BYTES: usize = 1 << 20;
/// Deepest nesting of `${a:-${b:-…}}`.
const MAX_DEPTH: u32 = 50;

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

/// Expands one word. Names that are unset are put into `unset`.
pub(crate) fn expand(word: &str, escape: char, lookup: Lookup<'_>) -> Result<String, String> {
    run(word, escape, Quotes::Process, lookup)
}

/// Expands the body of a heredoc: the escape character is a backslash, quotes are text.
pub(crate) fn expand_body(body: &str, lookup: Lookup<'_>) -> Result<String, String> {
    run(body, '\\', Quotes::Keep, lookup)
}

fn run(word: &str, escape: char, quotes: Quotes, lookup: Lookup<'_>) -> Result<String, String> {
    let chars: Vec<char> = word.chars().collect();
    let mut expander = Expander { chars: &chars, at: 0, escape, quotes, lookup, depth: 0 };
    let result = expander.until(None)?;
    Ok(result)
}

struct Expander<'a> {
    chars: &'a [char],
    at: usize,
    escape: char,
    quotes: Quotes,
    lookup: Lookup<'a>,
    depth: u32,
}

impl Expander<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
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
                _ if char == self.escape => match (self.quotes, self.next()) {
                    (Quotes::Keep, Some(next)) if next != '$' && next != self.escape => {
                        result.extend([char, next]);
                    }
                    (_, Some(next)) => result.push(next),
                    (_, None) => result.push(char),
                },
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
            // Positional and special parameters are empty.
            Some('0'..='9' | '@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                self.at += 1;
                Ok(String::new())
            }
            _ => {
                let name = self.name();
                if name.is_empty() {
                    return Ok("$".to_owned());
                }
                Ok((self.lookup)(&name).unwrap_or_default())
            }
        }
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
            match self.next() {
                Some(char @ ('0'..='9' | '@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                    name.push(char);
                }
                Some(_) => return Err("syntax error: bad substitution".to_owned()),
                None => return Err("syntax error: missing '}'".to_owned()),
            }
        }
        let value = (self.lookup)(&name);
        match self.next() {
            Some('}') => Ok(value.unwrap_or_default()),
            Some(':') => {
                let modifier = self.next().ok_or("syntax error: missing '}'")?;
                self.modified(&name, value.filter(|value| !value.is_empty()), modifier, true)
            }
            Some(modifier @ ('-' | '+' | '?')) => self.modified(&name, value, modifier, false),
            Some(side @ ('#' | '%')) => {
                let longest = self.peek() == Some(side);
                self.at += usize::from(longest);
                let pattern = self.pattern('}')?;
                self.close()?;
                Ok(trim(&value.unwrap_or_default(), &pattern, side, longest))
            }
            Some('/') => {
                let all = self.peek() == Some('/');
                self.at += usize::from(all);
                let pattern = self.pattern('/')?;
                if self.peek() == Some('/') {
                    self.at += 1;
                }
                let replacement = self.until(Some('}'))?;
                self.close()?;
                Ok(replace(&value.unwrap_or_default(), &pattern, &replacement, all))
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
        colon: bool,
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
            (_, None) if word.is_empty() => {
                let problem = if colon { "unset or empty" } else { "unset" };
                Err(format!("{name}: is not allowed to be {problem}"))
            }
            (_, None) => Err(format!("{name}: {word}")),
        }
    }

    /// A pattern up to `stop` or the closing brace, both left; escapes stay for the matcher.
    fn pattern(&mut self, stop: char) -> Result<Vec<char>, String> {
        let mut pattern = Vec::new();
        while let Some(char) = self.peek() {
            match char {
                '}' => return Ok(pattern),
                _ if char == stop => return Ok(pattern),
                '$' => {
                    self.at += 1;
                    pattern.extend(self.variable()?.chars());
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
        Err("syntax error: missing '}'".to_owned())
    }
}

fn unclosed(quote: &str) -> String {
    format!("unexpected end of statement while looking for matching {quote}-quote")
}

/// Removes what matches from one end.
fn trim(value: &str, pattern: &[char], side: char, longest: bool) -> String {
    let chars: Vec<char> = value.chars().collect();
    let lengths: Vec<usize> =
        if longest { (0..=chars.len()).rev().collect() } else { (0..=chars.len()).collect() };
    for length in lengths {
        let (cut, rest) = match side {
            '#' => (&chars[..length], &chars[length..]),
            _ => (&chars[chars.len() - length..], &chars[..chars.len() - length]),
        };
        if glob(pattern, cut) {
            return rest.iter().collect();
        }
    }
    value.to_owned()
}

/// Replaces the first or every longest match.
fn replace(value: &str, pattern: &[char], replacement: &str, all: bool) -> String {
    let chars: Vec<char> = value.chars().collect();
    let mut result = String::new();
    let mut at = 0;
    let mut done = pattern.is_empty();
    while at < chars.len() {
        let end = (at + 1..=chars.len()).rev().find(|end| !done && glob(pattern, &chars[at..*end]));
        match end {
            Some(end) if result.len() < MAX_RESULT_BYTES => {
                result.push_str(replacement);
                at = end;
                done = !all;
            }
            _ => {
                result.push(chars[at]);
                at += 1;
            }
        }
    }
    result
}

/// Whether a shell pattern (`*`, `?`, `\x`) matches all of `text`.
fn glob(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some('?') if t < text.len() => Some(1),
            Some('\\') if pattern.len() > p + 1 => (text.get(t) == pattern.get(p + 1)).then_some(2),
            Some(char) => (text.get(t) == Some(char)).then_some(1),
            None if t == text.len() => return true,
            None => None,
        };
        match (step, star) {
            (Some(used), _) => {
                p += used;
                t += 1;
            }
            (None, Some((after, swallowed))) if swallowed < text.len() => {
                star = Some((after, swallowed + 1));
                p = after;
                t = swallowed + 1;
            }
            _ => return false,
        }
    }
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
            ("$", "$"),
            ("100%", "100%"),
            ("${a:?needed}", "value"),
        ] {
            assert_eq!(expand(word, '\\', &lookup).as_deref(), Ok(expected), "{word}");
        }
        assert_eq!(expand("C:\\x\\$a", '`', &lookup).as_deref(), Ok("C:\\x\\value"));
        assert_eq!(
            expand_body("'$a' \\$a \"x\" \\n", &lookup).as_deref(),
            Ok("'value' $a \"x\" \\n")
        );
    }

    #[test]
    fn bad_substitutions_are_errors() {
        for (word, part) in [
            ("${}", "bad substitution"),
            ("${a", "missing '}'"),
            ("${a:Y}", "unsupported modifier (:Y)"),
            ("${none:?must be set}", "none: must be set"),
            ("${none?}", "is not allowed to be unset"),
            ("'x", "matching single-quote"),
            ("\"x", "matching double-quote"),
        ] {
            let error = expand(word, '\\', &lookup).unwrap_err();
            assert!(error.contains(part), "{word}: {error}");
        }
        let deep = "${x:-".repeat(10_000);
        assert!(expand(&deep, '\\', &lookup).is_err());
    }
}
