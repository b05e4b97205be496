//! HEALTHCHECK.

use super::flags::Flags;
use super::kinds::{CommandForm, Health};
use super::parse::command;
use super::words::split_keyword;
use crate::diagnostic::Problem;

pub(super) fn health(flags: &mut Flags, rest: &str) -> Result<Option<Health>, Problem> {
    let bad = |message: String| Problem::new("bad-healthcheck", message);
    let (kind, rest) = split_keyword(rest);
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if rest.trim().is_empty() => Ok(None),
        "NONE" => Err(bad("HEALTHCHECK NONE takes no arguments".to_owned())),
        "" => Err(bad("HEALTHCHECK requires at least one argument".to_owned())),
        "CMD" => {
            let mut options = Vec::new();
            for name in ["interval", "timeout", "start-period", "start-interval"] {
                let Some(text) = flags.value(name)? else { continue };
                let nanos = duration(&text).ok_or_else(|| {
                    bad(format!("time: invalid duration {text:?}")).blaming(&text)
                })?;
                if nanos != 0 && nanos < 1_000_000 {
                    return Err(bad(format!("Interval {name:?} cannot be less than 1ms")));
                }
                options.push((name.to_owned(), nanos));
            }
            if let Some(text) = flags.value("retries")? {
                let retries: i32 = text
                    .parse()
                    .map_err(|_| bad(format!("invalid number {text:?} for --retries")))?;
                if retries < 0 {
                    return Err(
                        bad(format!("--retries cannot be negative ({retries})")).blaming(text)
                    );
                }
                options.push(("retries".to_owned(), i64::from(retries)));
            }
            let command = command(rest.trim())?;
            let is_empty = match &command {
                CommandForm::Shell(text) => text.is_empty(),
                CommandForm::Exec(argv) => argv.is_empty(),
            };
            if is_empty {
                return Err(bad("Missing command after HEALTHCHECK CMD".to_owned()));
            }
            Ok(Some(Health { command, options }))
        }
        _ => Err(bad(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)")).blaming(kind)),
    }
}

/// Units of durations in nanoseconds, the longer names first.
const UNITS: [(&str, i128); 8] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ns", 1),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// Go's durations: `1h2m3.5s`.
pub(super) fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let (whole, fraction) = rest[..end].split_once('.').unwrap_or((&rest[..end], ""));
        rest = &rest[end..];
        let (unit, nanos) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        if !whole.is_empty() {
            total += i128::from(whole.parse::<u64>().ok()?) * nanos;
        }
        // More digits than these are below a nanosecond of an hour.
        let (mut digits, mut scale) = (0, 1);
        for (at, char) in fraction.chars().enumerate() {
            let digit = i128::from(char.to_digit(10)?);
            if at < 18 {
                digits = digits * 10 + digit;
                scale *= 10;
            }
        }
        total += digits * nanos / scale;
        if total > i128::from(i64::MAX) {
            return None;
        }
    }
    i64::try_from(sign * total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("1m30s"), Some(90_000_000_000));
        assert_eq!(duration("1.5ms"), Some(1_500_000));
        assert_eq!(duration("1.001s"), Some(1_001_000_000));
        assert_eq!(duration(".5s"), Some(500_000_000));
        assert_eq!(duration("+1.s"), Some(1_000_000_000));
        assert_eq!(duration("-1h1\u{3bc}s"), Some(-3_600_000_001_000));
        assert_eq!(duration("0.3333333333333333333333h"), Some(1_200_000_000_000 - 1));
        assert_eq!(duration("0s"), Some(0));
        for bad in ["5", ".s", "1.2.3s", "1x", "s", "-", "+-1s", "1mx"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        assert_eq!(duration(""), None);
        assert_eq!(duration("99999999999h"), None);
    }
}
