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
                let retries: i64 = text
                    .parse()
                    .map_err(|_| bad(format!("invalid number {text:?} for --retries")))?;
                if retries < 0 {
                    return Err(
                        bad(format!("--retries cannot be negative ({retries})")).blaming(text)
                    );
                }
                options.push(("retries".to_owned(), retries));
            }
            let command = command(rest.trim())?;
            if matches!(&command, CommandForm::Shell(text) if text.is_empty()) {
                return Err(bad("Missing command after HEALTHCHECK CMD".to_owned()));
            }
            Ok(Some(Health { command, options }))
        }
        _ => Err(bad(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)")).blaming(kind)),
    }
}

/// Go's durations: `1h2m3.5s`.
pub(super) fn duration(text: &str) -> Option<i64> {
    let mut total = 0.0;
    let mut rest = text;
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let units = [
            ("ms", 1e6),
            ("us", 1e3),
            ("µs", 1e3),
            ("ns", 1.0),
            ("h", 3.6e12),
            ("m", 6e10),
            ("s", 1e9),
        ];
        let (unit, nanos) = units.iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total += number * nanos;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
    (total < 9.2e18).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("1m30s"), Some(90_000_000_000));
        assert_eq!(duration("1.5ms"), Some(1_500_000));
        assert_eq!(duration("0s"), Some(0));
        assert_eq!(duration("5"), None);
        assert_eq!(duration(""), None);
        assert_eq!(duration("99999999999h"), None);
    }
}
