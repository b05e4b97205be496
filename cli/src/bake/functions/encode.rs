//! Functions of encodings, digests, times and names.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256, Sha512};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::Arguments;

pub(super) fn call(name: &str, arguments: &Arguments<'_>) -> Option<Result<Value, String>> {
    let first = || arguments.text(0);
    let word = |made: Result<String, String>| Some(made.map(Value::String));
    match name {
        "base64encode" => word(first().map(|text| BASE64_STANDARD.encode(text))),
        "base64decode" => word(first().and_then(|text| {
            let bytes = BASE64_STANDARD.decode(text).map_err(|error| error.to_string())?;
            String::from_utf8(bytes).map_err(|_| "what is encoded is no text".to_owned())
        })),
        "urlencode" => word(first().map(|text| url_encoded(&text))),
        "jsonencode" => word(arguments.at(0).map(Value::to_string)),
        "jsondecode" => Some(
            first().and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string())),
        ),
        "sha256" => word(first().map(|text| hex::encode(Sha256::digest(text)))),
        "sha512" => word(first().map(|text| hex::encode(Sha512::digest(text)))),
        "uuidv4" => word(Ok(uuid::Uuid::new_v4().to_string())),
        "timestamp" => word(stamp(OffsetDateTime::now_utc())),
        "timeadd" => word(first().and_then(|start| {
            let end = parsed(&start)?.checked_add(duration(&arguments.text(1)?)?);
            stamp(end.ok_or("there is no such time")?)
        })),
        "formatdate" => {
            word(first().and_then(|pattern| Ok(date(&pattern, parsed(&arguments.text(1)?)?))))
        }
        _ => None,
    }
}

fn url_encoded(text: &str) -> String {
    let mut made = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                made.push(byte.into());
            }
            b' ' => made.push('+'),
            byte => made.push_str(&format!("%{byte:02X}")),
        }
    }
    made
}

fn parsed(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|error| format!("{text}: {error}"))
}

fn stamp(time: OffsetDateTime) -> Result<String, String> {
    let time = time.replace_nanosecond(0).unwrap_or(time);
    time.format(&Rfc3339).map_err(|error| error.to_string())
}

/// `1h30m`, `-45s`, `1.5h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text} is no duration");
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|char: char| !char.is_ascii_digit() && char != '.');
        let (count, after) = rest.split_at(end.ok_or_else(wrong)?);
        let units = [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3)];
        let units = units.into_iter().chain([("h", 3600.0), ("m", 60.0), ("s", 1.0)]);
        let unit =
            units.into_iter().find_map(|(name, size)| Some((after.strip_prefix(name)?, size)));
        let (after, size) = unit.ok_or_else(wrong)?;
        seconds += count.parse::<f64>().map_err(|_| wrong())? * size;
        rest = after;
    }
    Duration::checked_seconds_f64(sign * seconds).ok_or_else(wrong)
}

/// `YYYY MM DD hh mm ss` and the other words of formatdate; text in quotes stays.
fn date(pattern: &str, time: OffsetDateTime) -> String {
    const MONTHS: &str =
        "January February March April May June July August September October November December";
    const DAYS: &str = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday";
    let name = |names: &'static str, number: u8| names.split(' ').nth(number.into()).unwrap_or("");
    let month = name(MONTHS, u8::from(time.month()) - 1);
    let day = name(DAYS, time.weekday().number_days_from_monday());
    let hour = |hour: u8| if hour.is_multiple_of(12) { 12 } else { hour % 12 };
    let half = if time.hour() < 12 { "AM" } else { "PM" };
    let words = [
        ("YYYY", format!("{:04}", time.year())),
        ("YY", format!("{:02}", time.year().rem_euclid(100))),
        ("MMMM", month.to_owned()),
        ("MMM", month.chars().take(3).collect()),
        ("MM", format!("{:02}", u8::from(time.month()))),
        ("M", u8::from(time.month()).to_string()),
        ("DD", format!("{:02}", time.day())),
        ("D", time.day().to_string()),
        ("EEEE", day.to_owned()),
        ("EEE", day.chars().take(3).collect()),
        ("hh", format!("{:02}", time.hour())),
        ("h", time.hour().to_string()),
        ("HH", format!("{:02}", hour(time.hour()))),
        ("H", hour(time.hour()).to_string()),
        ("AA", half.to_owned()),
        ("aa", half.to_lowercase()),
        ("mm", format!("{:02}", time.minute())),
        ("m", time.minute().to_string()),
        ("ss", format!("{:02}", time.second())),
        ("s", time.second().to_string()),
    ];
    let (mut made, mut rest) = (String::new(), pattern);
    while let Some(char) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix('\'') {
            let end = after.find('\'').unwrap_or(after.len());
            made.push_str(&after[..end]);
            rest = after.get(end + 1..).unwrap_or_default();
            continue;
        }
        let word = words.iter().find_map(|(word, text)| Some((rest.strip_prefix(word)?, text)));
        match word {
            Some((after, text)) => {
                made.push_str(text);
                rest = after;
            }
            None => {
                made.push(char);
                rest = &rest[char.len_utf8()..];
            }
        }
    }
    made
}
