//! Functions of texts.

use regex::Regex;
use serde_json::Value;

use super::{Arguments, MAX_SIZE, integer, number, text};

pub(super) fn call(name: &str, arguments: &Arguments<'_>) -> Option<Result<Value, String>> {
    let first = || arguments.text(0);
    let second = || arguments.text(1);
    let word = |made: Result<String, String>| Some(made.map(Value::String));
    match name {
        "upper" => word(first().map(|text| text.to_uppercase())),
        "lower" => word(first().map(|text| text.to_lowercase())),
        "title" => word(first().map(|text| title(&text))),
        "trimspace" => word(first().map(|text| text.trim().to_owned())),
        "chomp" => word(first().map(|text| text.trim_end_matches(['\r', '\n']).to_owned())),
        "reverse" => word(first().map(|text| text.chars().rev().collect())),
        "trim" => word(first().and_then(|text| {
            let set = second()?;
            Ok(text.trim_matches(|char| set.contains(char)).to_owned())
        })),
        "trimprefix" => word(first().and_then(|text| {
            let start = second()?;
            Ok(text.strip_prefix(start.as_str()).unwrap_or(&text).to_owned())
        })),
        "trimsuffix" => word(first().and_then(|text| {
            let end = second()?;
            Ok(text.strip_suffix(end.as_str()).unwrap_or(&text).to_owned())
        })),
        "indent" => word(indent(arguments)),
        "replace" => word(first().and_then(|text| {
            let (old, new) = (second()?, arguments.text(2)?);
            let count = text.matches(old.as_str()).count();
            fits(text.len().saturating_add(count.saturating_mul(new.len())))?;
            Ok(text.replace(&old, &new))
        })),
        "split" => Some(first().and_then(|separator| {
            let text = second()?;
            let parts: Vec<Value> = if separator.is_empty() {
                text.chars().map(|char| Value::String(char.into())).collect()
            } else {
                text.split(separator.as_str()).map(Value::from).collect()
            };
            Ok(Value::Array(parts))
        })),
        "join" => word(first().and_then(|separator| {
            let lists = (1..arguments.count()).map(|position| arguments.texts(position));
            Ok(lists.collect::<Result<Vec<_>, _>>()?.concat().join(&separator))
        })),
        "strlen" => Some(first().map(|text| Value::from(text.chars().count()))),
        "byteslen" => Some(first().map(|text| Value::from(text.len()))),
        "substr" => word(part(arguments)),
        "format" => word(
            first().and_then(|pattern| format(&pattern, arguments.0.get(1..).unwrap_or_default())),
        ),
        "formatlist" => Some(format_list(arguments)),
        "sanitize" => word(first().map(|text| {
            let fits = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-');
            text.chars().map(|char| if fits(char) { char } else { '_' }).collect()
        })),
        "basename" => word(first().map(|path| match path.trim_end_matches('/') {
            "" if path.is_empty() => ".".to_owned(),
            "" => "/".to_owned(),
            path => path.rsplit('/').next().unwrap_or(path).to_owned(),
        })),
        "dirname" => word(first().map(|path| match path.rsplit_once('/') {
            None => ".".to_owned(),
            Some((above, _)) if above.trim_end_matches('/').is_empty() => "/".to_owned(),
            Some((above, _)) => above.trim_end_matches('/').to_owned(),
        })),
        _ => by_pattern(name, arguments),
    }
}

fn by_pattern(name: &str, arguments: &Arguments<'_>) -> Option<Result<Value, String>> {
    let first = || arguments.text(0);
    let second = || arguments.text(1);
    match name {
        "regex_replace" => Some(first().and_then(|text| {
            let (pattern, new) = (regex(&second()?)?, arguments.text(2)?);
            fits(text.len().saturating_mul(new.len().max(1)))?;
            Ok(pattern.replace_all(&text, new.as_str()).into_owned().into())
        })),
        "regex" => Some(first().and_then(|pattern| {
            let text = second()?;
            let pattern = regex(&pattern)?;
            let found = pattern.captures(&text).ok_or("nothing of the text fits the regex")?;
            Ok(captured(&pattern, &found))
        })),
        "regexall" => Some(first().and_then(|pattern| {
            let text = second()?;
            let pattern = regex(&pattern)?;
            let found = pattern.captures_iter(&text);
            Ok(Value::Array(found.map(|found| captured(&pattern, &found)).collect()))
        })),
        _ => None,
    }
}

fn fits(bytes: usize) -> Result<(), String> {
    if bytes > MAX_SIZE { Err("the result is too large".to_owned()) } else { Ok(()) }
}

fn regex(pattern: &str) -> Result<Regex, String> {
    let made = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build();
    made.map_err(|error| error.to_string())
}

/// What a match gives: its groups by name or in order, or all of it where it has none.
fn captured(pattern: &Regex, found: &regex::Captures<'_>) -> Value {
    let group = |found: Option<regex::Match<'_>>| {
        found.map_or(Value::Null, |found| Value::from(found.as_str()))
    };
    let names: Vec<&str> = pattern.capture_names().flatten().collect();
    if !names.is_empty() {
        let named = names.into_iter().map(|name| (name.to_owned(), group(found.name(name))));
        return Value::Object(named.collect());
    }
    if found.len() == 1 {
        return group(found.get(0));
    }
    Value::Array((1..found.len()).map(|position| group(found.get(position))).collect())
}

fn title(text: &str) -> String {
    let mut starts = true;
    let letter = |char: char| {
        let was_start = std::mem::replace(&mut starts, char.is_whitespace());
        if was_start { char.to_uppercase().collect::<String>() } else { char.to_string() }
    };
    text.chars().map(letter).collect()
}

fn indent(arguments: &Arguments<'_>) -> Result<String, String> {
    let (count, text) = (arguments.integer(0)?, arguments.text(1)?);
    let count = usize::try_from(count).map_err(|_| "less than nothing".to_owned())?;
    fits(text.matches('\n').count().saturating_mul(count))?;
    Ok(text.replace('\n', &format!("\n{}", " ".repeat(count))))
}

fn part(arguments: &Arguments<'_>) -> Result<String, String> {
    let (text, start, length) = (arguments.text(0)?, arguments.integer(1)?, arguments.integer(2)?);
    let chars: Vec<char> = text.chars().collect();
    let all = i64::try_from(chars.len()).unwrap_or(i64::MAX);
    let start = if start < 0 { (all + start).max(0) } else { start.min(all) };
    let end = if length < 0 { all } else { start.saturating_add(length).min(all) };
    let count = |number: i64| usize::try_from(number).unwrap_or_default();
    Ok(chars[count(start)..count(end)].iter().collect())
}

fn format_list(arguments: &Arguments<'_>) -> Result<Value, String> {
    let pattern = arguments.text(0)?;
    let rest = arguments.0.get(1..).unwrap_or_default();
    let lengths = rest.iter().filter_map(|value| value.as_array().map(Vec::len));
    let count = lengths.max().unwrap_or(1);
    let line = |position: usize| {
        let values = rest.iter().map(|value| match value.as_array() {
            Some(items) => items.get(position).cloned().ok_or("the lists have other lengths"),
            None => Ok(value.clone()),
        });
        let values = values.collect::<Result<Vec<_>, _>>()?;
        Ok(Value::String(format(&pattern, &values)?))
    };
    Ok(Value::Array((0..count).map(line).collect::<Result<_, String>>()?))
}

/// `%[flags][width][.precision]verb`, in the verbs that Go and HCL have in common.
fn format(pattern: &str, values: &[Value]) -> Result<String, String> {
    let (mut made, mut next) = (String::new(), 0);
    let mut chars = pattern.chars().peekable();
    while let Some(char) = chars.next() {
        if char != '%' {
            made.push(char);
            continue;
        }
        let mut take = |fits: fn(char) -> bool| {
            let mut taken = String::new();
            while let Some(char) = chars.next_if(|char| fits(*char)) {
                taken.push(char);
            }
            taken
        };
        let flags = take(|char| matches!(char, '-' | '+' | '0' | '#' | ' '));
        let width = take(|char| char.is_ascii_digit());
        let dots = take(|char| char == '.');
        let precision = take(|char| char.is_ascii_digit());
        let verb = chars.next().ok_or("the format ends too early")?;
        if verb == '%' {
            made.push('%');
            continue;
        }
        let value = values.get(next).ok_or("arguments are too few")?;
        next += 1;
        let width = if width.is_empty() { 0 } else { size(&width)? };
        let precision = match (dots.as_str(), precision.as_str()) {
            ("", _) => None,
            (_, "") => Some(0),
            (_, precision) => Some(size(precision)?),
        };
        let piece = shown(verb, value, precision, flags.contains('+'))?;
        let missing = width.saturating_sub(piece.chars().count());
        fits(made.len() + missing)?;
        let is_number = matches!(verb, 'd' | 'f' | 'x' | 'X' | 'o' | 'b');
        if flags.contains('-') {
            made.push_str(&piece);
            made.push_str(&" ".repeat(missing));
        } else if flags.contains('0') && is_number {
            let (sign, digits) = piece.split_at(usize::from(piece.starts_with(['-', '+'])));
            made.push_str(&format!("{sign}{}{digits}", "0".repeat(missing)));
        } else {
            made.push_str(&" ".repeat(missing));
            made.push_str(&piece);
        }
    }
    if next < values.len() { Err("arguments are too many".to_owned()) } else { Ok(made) }
}

fn size(digits: &str) -> Result<usize, String> {
    let size = digits.parse().ok().filter(|size| *size <= 1000);
    size.ok_or_else(|| "a width of the format is too large".to_owned())
}

fn shown(
    verb: char,
    value: &Value,
    precision: Option<usize>,
    signed: bool,
) -> Result<String, String> {
    let whole = || integer(number(value)?);
    let sign = |negative: bool| if signed && !negative { "+" } else { "" };
    let limited = |text: String| match precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text,
    };
    Ok(match verb {
        'v' => match value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        },
        's' => limited(text(value)?),
        'q' => Value::String(text(value)?).to_string(),
        't' => super::boolean(value)?.to_string(),
        'd' => whole().map(|number| format!("{}{number}", sign(number < 0)))?,
        'x' => format!("{:x}", whole()?),
        'X' => format!("{:X}", whole()?),
        'o' => format!("{:o}", whole()?),
        'b' => format!("{:b}", whole()?),
        'f' => {
            let number = number(value)?;
            format!("{}{number:.*}", sign(number < 0.0), precision.unwrap_or(6))
        }
        verb => return Err(format!("the format %{verb} is not supported")),
    })
}
