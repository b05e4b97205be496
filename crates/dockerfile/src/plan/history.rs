//! The texts of an image's history, as BuildKit writes them: tools read them.

use common::image::{Healthcheck, HistoryEntry};

use super::scope::Variables;

/// What tools know BuildKit's entries by.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// An entry; `empty` where the instruction makes no layer.
pub(crate) fn entry(created_by: String, empty: bool) -> HistoryEntry {
    HistoryEntry {
        created_by: Some(created_by),
        comment: Some(COMMENT.to_owned()),
        empty_layer: empty,
        ..HistoryEntry::default()
    }
}

/// `RUN |1 A=3 /bin/sh -c … # buildkit`. An ARG shows what the command sees under its name.
pub(crate) fn run(variables: &Variables, argv: &[String]) -> String {
    let mut text = "RUN ".to_owned();
    if !variables.args.is_empty() {
        text.push_str(&format!("|{} ", variables.args.len()));
        for (name, value) in &variables.args {
            let seen = variables.get(name).or_else(|| value.clone()).unwrap_or_default();
            text.extend([name, "=", seen.as_str(), " "]);
        }
    }
    text.push_str(&argv.join(" "));
    text.push_str(" # buildkit");
    text
}

/// A list of quoted strings as Go's `%q` writes it: `["a" "b"]`.
pub(crate) fn quoted(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|item| quote(item)).collect();
    format!("[{}]", items.join(" "))
}

fn quote(text: &str) -> String {
    let mut result = "\"".to_owned();
    for char in text.chars() {
        match char {
            '"' => result.push_str("\\\""),
            '\\' => result.push_str("\\\\"),
            '\x07' => result.push_str("\\a"),
            '\x08' => result.push_str("\\b"),
            '\x0b' => result.push_str("\\v"),
            '\x0c' => result.push_str("\\f"),
            '\n' => result.push_str("\\n"),
            '\r' => result.push_str("\\r"),
            '\t' => result.push_str("\\t"),
            '\0'..='\x1f' | '\x7f' => result.push_str(&format!("\\x{:02x}", char as u32)),
            char if is_invisible(char) && (char as u32) < 0x1_0000 => {
                result.push_str(&format!("\\u{:04x}", char as u32));
            }
            char => result.push(char),
        }
    }
    result.push('"');
    result
}

/// What is no mark on paper: Go writes it as a number.
fn is_invisible(char: char) -> bool {
    char.is_control()
        || (char.is_whitespace() && char != ' ')
        || matches!(char, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(char, '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}' | '\u{feff}')
}

/// A health check as Go's `%+v` writes the structure.
pub(crate) fn healthcheck(health: &Healthcheck) -> String {
    format!(
        "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        plain(&health.test),
        duration(health.interval),
        duration(health.timeout),
        duration(health.start_period),
        duration(health.start_interval),
        health.retries
    )
}

/// Nanoseconds as Go writes a duration: `1h0m30s`, `1.5s`, `100ms`.
fn duration(nanos: i64) -> String {
    let decimal = |unit: i64| {
        let digits = unit.ilog10() as usize;
        let text = format!("{}.{:0digits$}", nanos / unit, nanos % unit);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(1_000_000)),
        _ => {
            const MINUTE: i64 = 60_000_000_000;
            let rest = nanos % MINUTE;
            let seconds = format!("{}.{:09}", rest / 1_000_000_000, rest % 1_000_000_000);
            let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
            match (nanos / MINUTE / 60, nanos / MINUTE % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// A list as Go's `%v` writes it: `[a b]`.
pub(crate) fn plain(list: &[String]) -> String {
    format!("[{}]", list.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_as_in_go() {
        let list = ["a\"b\\", "\u{1b}[0m\n\t\0", "é\u{301}\u{a0}'"].map(str::to_owned);
        let expected = r#"["a\"b\\" "\x1b[0m\n\t\x00" "é\u{301}\u00a0'"]"#;
        assert_eq!(quoted(&list), expected.replace("\\u{301}", "\u{301}"));
    }

    #[test]
    fn durations_are_written_as_in_go() {
        for (nanos, text) in [
            (0, "0s"),
            (100_000_000, "100ms"),
            (1_500_000, "1.5ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (10_000_000_000, "10s"),
            (90_000_000_000, "1m30s"),
            (300_000_000_000, "5m0s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(duration(nanos), text);
        }
    }
}
