//! Variables in compose files, and files of variables.

use std::collections::BTreeMap;

/// Deepest defaults within defaults.
const MAX_DEPTH: usize = 20;
/// Longest text that comes out.
const MAX_BYTES: usize = 4 << 20;

/// Where variables come from.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?error}`, `${NAME:+other}`, each also without the
/// colon, and `$$` for a dollar sign.
pub(super) fn interpolate(text: &str, variables: Variables<'_>) -> Result<String, String> {
    let mut made = String::new();
    let rest = write(text, variables, &mut made, 0)?;
    match rest {
        "" => Ok(made),
        rest => Err(format!("{rest} is left over")),
    }
}

/// Writes until the end, or until the brace that ends a default.
fn write<'a>(
    text: &'a str,
    variables: Variables<'_>,
    made: &mut String,
    depth: usize,
) -> Result<&'a str, String> {
    if depth > MAX_DEPTH {
        return Err("the defaults lie too deep in each other".to_owned());
    }
    let mut rest = text;
    loop {
        let stops: &[char] = if depth == 0 { &['$'] } else { &['$', '}'] };
        let Some(stop) = rest.find(stops) else {
            made.push_str(rest);
            return if depth == 0 { Ok("") } else { Err(format!("a }} is missing in {text}")) };
        };
        made.push_str(&rest[..stop]);
        if made.len() > MAX_BYTES {
            return Err("the text is too long".to_owned());
        }
        rest = &rest[stop..];
        if rest.starts_with('}') {
            return Ok(rest);
        }
        let after = &rest[1..];
        if let Some(after) = after.strip_prefix('$') {
            made.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            rest = braced(after, variables, made, depth)?;
        } else {
            let (name, after) = name(after);
            if name.is_empty() {
                return Err(format!("{rest}: the name of a variable is expected, or $$"));
            }
            made.push_str(&variables(name).unwrap_or_default());
            rest = after;
        }
    }
}

/// What follows `${`.
fn braced<'a>(
    text: &'a str,
    variables: Variables<'_>,
    made: &mut String,
    depth: usize,
) -> Result<&'a str, String> {
    let wrong = || format!("${{{text}: ${{NAME}} is expected, or one of its forms");
    let (name, after) = name(text);
    if name.is_empty() {
        return Err(wrong());
    }
    let value = variables(name);
    if let Some(rest) = after.strip_prefix('}') {
        made.push_str(&value.unwrap_or_default());
        return Ok(rest);
    }
    let (counts_empty, after) = match after.strip_prefix(':') {
        Some(after) => (true, after),
        None => (false, after),
    };
    let value = value.filter(|value| !(counts_empty && value.is_empty()));
    let kind = after.chars().next().filter(|kind| matches!(kind, '-' | '?' | '+'));
    let kind = kind.ok_or_else(wrong)?;
    let mut other = String::new();
    let rest = write(&after[1..], variables, &mut other, depth + 1)?;
    match (kind, value) {
        ('-', Some(value)) => made.push_str(&value),
        ('-', None) | ('+', Some(_)) => made.push_str(&other),
        ('?', Some(value)) => made.push_str(&value),
        ('?', None) => return Err(format!("{name} is not set: {other}")),
        _ => {}
    }
    Ok(&rest[1..])
}

fn name(text: &str) -> (&str, &str) {
    let fits = |(at, char): &(usize, char)| {
        char.is_ascii_alphabetic() || *char == '_' || (*at > 0 && char.is_ascii_digit())
    };
    let end = text.char_indices().find(|char| !fits(char)).map_or(text.len(), |(end, _)| end);
    text.split_at(end)
}

/// The variables of a file with `NAME=VALUE` lines; values in single quotes are taken as they are.
pub(super) fn variables(
    text: &str,
    outer: Variables<'_>,
) -> Result<BTreeMap<String, String>, String> {
    let mut all = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        let line = line.strip_prefix("export ").unwrap_or(line);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = || format!("{line}: NAME=VALUE is expected");
        let (name, value) = line.split_once('=').ok_or_else(wrong)?;
        let (name, value) = (name.trim(), value.trim());
        let known = |name: &str| outer(name).or_else(|| all.get(name).cloned());
        let quoted = |quote: char| {
            let inner = value.strip_prefix(quote)?;
            let end = inner.rfind(quote)?;
            let after = inner[end + 1..].trim();
            (after.is_empty() || after.starts_with('#')).then(|| &inner[..end])
        };
        let value = if let Some(inner) = quoted('\'') {
            inner.to_owned()
        } else if let Some(inner) = quoted('"') {
            interpolate(inner, &known)?.replace("\\n", "\n").replace("\\\"", "\"")
        } else {
            let end = value.find(" #").unwrap_or(value.len());
            interpolate(value[..end].trim_end(), &known)?
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(wrong());
        }
        all.insert(name.to_owned(), value);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in() {
        let known = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, expected) in [
            ("x$A.$A", "xa.a"),
            ("${A}b$$A", "ab$A"),
            ("${NONE}", ""),
            ("${NONE:-${A}-x}", "a-x"),
            ("${EMPTY:-d}${EMPTY-d}", "d"),
            ("${A:+y}${NONE:+y}${EMPTY+y}", "yy"),
            ("${A:?gone}", "a"),
        ] {
            assert_eq!(interpolate(text, &known).as_deref(), Ok(expected), "{text}");
        }
        for (text, says) in [
            ("${NONE:?it has to be}", "it has to be"),
            ("${A", "is expected"),
            ("${A:-x", "missing"),
            ("$ x", "is expected"),
            ("${A:=x}", "is expected"),
        ] {
            let error = interpolate(text, &known).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        let deep = "${N:-".repeat(100);
        assert!(interpolate(&deep, &known).unwrap_err().contains("too deep"));
    }

    #[test]
    fn files_of_variables_are_read() {
        let text = "# c\nexport A=1\nB=\"x $A\"\nC='$A' # c\nD=a b # c\n\nE=\n";
        let made = variables(text, &|_| None).unwrap();
        let pairs: Vec<String> =
            made.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(pairs, ["A=1", "B=x 1", "C=$A", "D=a b", "E="]);
        assert!(variables("nothing", &|_| None).is_err());
    }
}
