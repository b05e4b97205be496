//! Properties of expansion and of ignore rules, on inputs that nobody has thought of.
#![expect(clippy::unwrap_used, reason = "a wrong assumption of a test fails the test")]

use common::Platform;
use common::ignore::IgnoreFile;
use dockerfile::{ImageFacts, Options, parse};
use proptest::prelude::*;

/// A word in the making: what it reads and what it comes to.
#[derive(Debug, Clone)]
enum Part {
    Text(String),
    /// `\x`
    Escaped(char),
    /// `'…'`
    Single(String),
    /// `"…"`
    Double(Vec<Part>),
    /// `$name` or `${name}`
    Variable {
        name: &'static str,
        braces: bool,
    },
    /// `${name:-word}` and its kin: sign, and whether empty counts as unset.
    Modified {
        name: &'static str,
        colon: bool,
        sign: char,
        word: Vec<Part>,
    },
    /// `${name#text}` and its kin, without wildcards.
    Trimmed {
        name: &'static str,
        sign: &'static str,
        text: String,
    },
    /// `${name/text/text}`, without wildcards.
    Replaced {
        name: &'static str,
        all: bool,
        from: String,
        to: String,
    },
}

/// The variables; `none` has no value.
const NAMES: [&str; 4] = ["full", "path", "empty", "none"];

fn value(name: &str) -> Option<&'static str> {
    match name {
        "full" => Some("value"),
        "path" => Some("/a/b.a/b"),
        "empty" => Some(""),
        _ => None,
    }
}

impl Part {
    fn text(&self, quoted: bool) -> String {
        let all = |parts: &[Self], quoted| parts.iter().map(|part| part.text(quoted)).collect();
        match self {
            Self::Text(text) => text.clone(),
            Self::Escaped(char) => format!("\\{char}"),
            // Within double quotes a single one is text.
            Self::Single(text) if quoted => text.clone(),
            Self::Single(text) => format!("'{text}'"),
            Self::Double(parts) if quoted => all(parts, true),
            Self::Double(parts) => {
                let inner: String = all(parts, true);
                format!("\"{inner}\"")
            }
            Self::Variable { name, braces: true } => format!("${{{name}}}"),
            Self::Variable { name, braces: false } if quoted => format!("${{{name}}}"),
            // A letter behind it would belong to the name.
            Self::Variable { name, braces: false } => format!("\"${name}\""),
            Self::Modified { name, colon, sign, word } => {
                let (colon, word): (_, String) = (if *colon { ":" } else { "" }, all(word, false));
                format!("${{{name}{colon}{sign}{word}}}")
            }
            Self::Trimmed { name, sign, text } => format!("${{{name}{sign}{text}}}"),
            Self::Replaced { name, all, from, to } => {
                format!("${{{name}/{}{from}/{to}}}", if *all { "/" } else { "" })
            }
        }
    }

    fn result(&self) -> String {
        let all = |parts: &[Self]| parts.iter().map(Self::result).collect::<String>();
        match self {
            Self::Text(text) | Self::Single(text) => text.clone(),
            Self::Escaped(char) => char.to_string(),
            Self::Double(parts) => all(parts),
            Self::Variable { name, .. } => value(name).unwrap_or("").to_owned(),
            Self::Modified { name, colon, sign, word } => {
                let found = value(name).filter(|value| !*colon || !value.is_empty());
                match (sign, found) {
                    ('-', Some(found)) => found.to_owned(),
                    ('-', None) | ('+', Some(_)) => all(word),
                    _ => String::new(),
                }
            }
            Self::Trimmed { name, sign, text } => {
                let found = value(name).unwrap_or("");
                let rest = match *sign {
                    "#" | "##" => found.strip_prefix(text.as_str()),
                    _ => found.strip_suffix(text.as_str()),
                };
                rest.unwrap_or(found).to_owned()
            }
            Self::Replaced { name, all: true, from, to } => {
                value(name).unwrap_or("").replace(from.as_str(), to)
            }
            Self::Replaced { name, all: false, from, to } => {
                value(name).unwrap_or("").replacen(from.as_str(), to, 1)
            }
        }
    }
}

fn part() -> impl Strategy<Value = Part> {
    let name = || proptest::sample::select(NAMES.to_vec());
    let plain = || "[a-z0-9/.:=-]{1,4}";
    let leaf = prop_oneof![
        plain().prop_map(Part::Text),
        // What the escape character has a meaning before, in and outside of quotes.
        proptest::sample::select(vec!['$', '"', '\\']).prop_map(Part::Escaped),
        "[a-z]{0,4}".prop_map(Part::Single),
        (name(), any::<bool>()).prop_map(|(name, braces)| Part::Variable { name, braces }),
        (name(), proptest::sample::select(vec!["#", "##", "%", "%%"]), "[a-b/]{1,2}")
            .prop_map(|(name, sign, text)| Part::Trimmed { name, sign, text }),
        (name(), any::<bool>(), "[a-b.]{1,2}", "[x-z]{0,2}")
            .prop_map(|(name, all, from, to)| Part::Replaced { name, all, from, to }),
    ];
    leaf.prop_recursive(3, 16, 4, move |inner| {
        let list = proptest::collection::vec(inner, 0..4);
        prop_oneof![
            list.clone().prop_map(Part::Double),
            (name(), any::<bool>(), proptest::sample::select(vec!['-', '+']), list)
                .prop_map(|(name, colon, sign, word)| Part::Modified { name, colon, sign, word }),
        ]
    })
}

/// What a word comes to in a Dockerfile.
fn expanded(word: &str) -> Option<String> {
    let text = format!("FROM scratch\nENV full=value path=/a/b.a/b empty=\nLABEL x={word}\n");
    let file = parse("Dockerfile", text.as_bytes()).ok()?;
    let planned = file.plan(&Options::new(Platform::host()), &ImageFacts::new(), None).ok()?;
    planned.plan.stages.last()?.config.labels.as_ref()?.get("x").cloned()
}

/// A pattern of an ignore file as a regular expression, by the rules of Docker's documentation.
fn expression(pattern: &str) -> String {
    let mut text = "^".to_owned();
    let mut chars = pattern.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '*' if chars.peek() == Some(&'*') => {
                chars.next();
                if chars.peek() == Some(&'/') {
                    chars.next();
                    text.push_str("(.*/)?");
                } else if chars.peek().is_none() {
                    text.push_str(".*");
                } else {
                    text.push_str("(.*/)?");
                }
            }
            '*' => text.push_str("[^/]*"),
            '?' => text.push_str("[^/]"),
            '.' => text.push_str("\\."),
            char => text.push(char),
        }
    }
    text + "$"
}

/// Whether the path, or a directory that holds it, matches.
fn matches(pattern: &str, path: &str) -> bool {
    let expression = regex::Regex::new(&expression(pattern)).unwrap();
    let parts: Vec<&str> = path.split('/').collect();
    (1..=parts.len()).any(|length| expression.is_match(&parts[..length].join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn words_come_to_what_their_parts_come_to(parts in proptest::collection::vec(part(), 1..6)) {
        let word: String = parts.iter().map(|part| part.text(false)).collect();
        let result: String = parts.iter().map(Part::result).collect();
        prop_assert_eq!(expanded(&word), Some(result), "{}", word);
    }

    #[test]
    fn single_quoted_text_is_itself(text in "[^'\\\\\n\r\u{0}]{0,20}") {
        let expected = (!text.ends_with(['\n', '\r'])).then(|| text.clone());
        prop_assert_eq!(expanded(&format!("'{text}'")), expected);
    }

    #[test]
    fn the_last_pattern_that_matches_decides(
        lines in proptest::collection::vec(
            (any::<bool>(), "(a|b|\\*|\\?|\\*\\*|a\\*|\\*b)(/(a|b|\\*|\\*\\*|\\*a))?(/(a|b|\\*))?"), 1..5),
        path in "(a|b|ab)(/(a|b|ba)){0,3}",
    ) {
        let line = |(negated, pattern): &(bool, String)| {
            format!("{}{pattern}\n", if *negated { "!" } else { "" })
        };
        let text: String = lines.iter().map(line).collect();
        let file = IgnoreFile::parse(text.as_bytes()).unwrap();
        let mut expected = false;
        for (negated, pattern) in &lines {
            if matches(pattern, &path) {
                expected = !negated;
            }
        }
        prop_assert_eq!(file.is_ignored(&path), expected, "{} in\n{}", path, text);
    }
}
