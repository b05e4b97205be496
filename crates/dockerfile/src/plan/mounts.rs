//! The grammar of `RUN --mount`.
//!
//! It is read twice: while the graph is made, for the stage or image that it reads from, when no
//! variable is known; and when the RUN is planned, for everything.

use common::plan::Sharing;

use crate::diagnostic::Problem;

/// Every key.
const KEYS: [&str; 17] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "env",
];
/// Keys of owners.
const OWNER_KEYS: [&str; 2] = ["uid", "gid"];

/// A kind of mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Bind, Self::Cache, Self::Tmpfs, Self::Secret, Self::Ssh];

    fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

/// A mount as written, variables expanded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Written {
    pub(super) kind: Kind,
    pub(super) from: Option<String>,
    pub(super) source: Option<String>,
    pub(super) target: Option<String>,
    /// What was asked for; each kind has its own default.
    pub(super) read_only: Option<bool>,
    pub(super) id: Option<String>,
    pub(super) sharing: Option<Sharing>,
    pub(super) required: bool,
    pub(super) size_bytes: Option<u64>,
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) env: Option<String>,
}

/// What a mount reads from, as written.
pub(crate) fn from_of(text: &str) -> Result<Option<String>, Problem> {
    for field in fields(text)? {
        let Some((key, value)) = field.split_once('=') else { continue };
        if key.trim().eq_ignore_ascii_case("from") {
            if value.contains('$') {
                let message =
                    "'from' doesn't support variable expansion, define alias stage instead";
                return Err(Problem::new("from-variable", message));
            }
            return Ok(Some(value.to_owned()).filter(|value| !value.is_empty()));
        }
    }
    Ok(None)
}

/// Reads a mount.
pub(super) fn read(
    text: &str,
    expand: &dyn Fn(&str) -> Result<String, Problem>,
) -> Result<Written, Problem> {
    let mut mount = Written::default();
    for field in fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        match value {
            None => mount.flag(&key, &field)?,
            // That of `from` was checked before.
            Some(value) if key == "from" => mount.pair(&key, value, &field)?,
            Some(value) => mount.pair(&key, &expand(value)?, &field)?,
        }
    }
    mount.check()?;
    Ok(mount)
}

impl Written {
    fn flag(&mut self, key: &str, field: &str) -> Result<(), Problem> {
        match key {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            "required" => self.require(key, true)?,
            _ => {
                let message = format!("invalid field '{field}' must be a key=value pair");
                return Err(bad(message).suggest(key, KEYS.into_iter().chain(OWNER_KEYS)));
            }
        }
        Ok(())
    }

    fn require(&mut self, key: &str, required: bool) -> Result<(), Problem> {
        if !matches!(self.kind, Kind::Secret | Kind::Ssh) {
            return Err(self.unexpected(key));
        }
        self.required = required;
        Ok(())
    }

    fn unexpected(&self, key: &str) -> Problem {
        bad(format!("unexpected key '{key}' for mount type '{}'", self.kind.name()))
            .with_hint("type= has to stand before it")
    }

    fn pair(&mut self, key: &str, value: &str, field: &str) -> Result<(), Problem> {
        let text = || Some(value.to_owned()).filter(|value| !value.is_empty());
        let invalid = || bad(format!("invalid value {value} for {key}")).blaming(value);
        let boolean = || {
            let wrong = || bad(format!("invalid value for {key}: {value}")).blaming(value);
            parse_bool(value).ok_or_else(wrong)
        };
        let number = || value.parse::<u32>().map(Some).map_err(|_| invalid());
        match key {
            "type" => {
                let name = value.to_ascii_lowercase();
                let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
                let names = Kind::ALL.map(Kind::name);
                self.kind = found.ok_or_else(|| {
                    bad(format!("unsupported mount type {value:?}"))
                        .suggest(&name, names)
                        .blaming(value)
                })?;
            }
            "from" => self.from = text(),
            "source" | "src" => self.source = text(),
            "target" | "dst" | "destination" => self.target = text(),
            "readonly" | "ro" => self.read_only = Some(boolean()?),
            "readwrite" | "rw" => self.read_only = Some(!boolean()?),
            "required" => {
                let required = boolean()?;
                self.require(key, required)?;
            }
            "id" => self.id = text(),
            "sharing" => {
                let known = [
                    ("shared", Sharing::Shared),
                    ("private", Sharing::Private),
                    ("locked", Sharing::Locked),
                ];
                let lower = value.to_ascii_lowercase();
                let found = known.iter().find(|(name, _)| *name == lower);
                let Some((_, sharing)) = found else {
                    let problem = bad(format!("unsupported sharing value {value:?}"));
                    let problem = problem.suggest(&lower, known.map(|(name, _)| name));
                    return Err(problem.blaming(value));
                };
                self.sharing = Some(*sharing);
            }
            "size" if self.kind != Kind::Tmpfs => return Err(self.unexpected(key)),
            "size" => {
                let size = parse_size(value);
                let wrong = || bad(format!("invalid value for {key}: {value}")).blaming(value);
                self.size_bytes = Some(size.ok_or_else(wrong)?);
            }
            "mode" => {
                let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777);
                self.mode = Some(mode.ok_or_else(invalid)?);
            }
            "uid" => self.uid = number()?,
            "gid" => self.gid = number()?,
            "env" => self.env = text(),
            _ => {
                let problem = bad(format!("unexpected key '{key}' in '{field}'"));
                let problem = problem.suggest(key, KEYS.into_iter().chain(OWNER_KEYS));
                return Err(problem.blaming(field));
            }
        }
        Ok(())
    }

    /// What does not go together.
    fn check(&self) -> Result<(), Problem> {
        let has_owner = matches!(self.kind, Kind::Cache | Kind::Secret | Kind::Ssh);
        for (key, given) in [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
            if given.is_some() && !has_owner {
                let kind = self.kind.name();
                return Err(bad(format!("{key} not allowed for {kind:?} type mounts")));
            }
        }
        if self.sharing.is_some() && self.kind != Kind::Cache {
            let kind = self.kind.name();
            return Err(bad(format!("invalid cache sharing set for {kind} mount")));
        }
        if self.env.is_some() && self.kind != Kind::Secret {
            return Err(self.unexpected("env"));
        }
        match self.kind {
            Kind::Secret => self.check_secret(),
            Kind::Ssh if self.source.is_some() => Err(bad("ssh does not support source")),
            Kind::Ssh if self.from.is_some() => Err(bad("ssh mount should not have a from")),
            Kind::Tmpfs if self.from.is_some() => Err(bad("tmpfs mount should not have a from")),
            _ => Ok(()),
        }
    }

    fn check_secret(&self) -> Result<(), Problem> {
        if self.from.is_some() {
            return Err(bad("secret mount should not have a from"));
        }
        if self.source.is_some() && self.id.is_some() {
            return Err(bad("both source and id can't be set"));
        }
        if self.source.is_none() && self.target.is_none() && self.id.is_none() {
            return Err(bad("invalid secret mount. one of source, target required"));
        }
        Ok(())
    }
}

fn bad(message: impl Into<String>) -> Problem {
    Problem::new("bad-mount", message)
}

/// The fields of one CSV record (RFC 4180): a field in double quotes may hold commas, and a doubled
/// quote stands for one.
fn fields(text: &str) -> Result<Vec<String>, Problem> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let end = if let Some(quoted) = rest.strip_prefix('"') {
            let (field, used) = quoted_field(quoted)
                .ok_or_else(|| bad(format!("failed to parse mount option {text:?}: a quote")))?;
            fields.push(field);
            used + 1
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let field = &rest[..end];
            if field.contains('"') {
                let message = format!("failed to parse mount option {text:?}: a bare quote");
                return Err(bad(message));
            }
            fields.push(field.to_owned());
            end
        };
        match rest[end..].strip_prefix(',') {
            Some(more) => rest = more,
            None => return Ok(fields),
        }
    }
}

/// A field up to its closing quote, and the bytes that it takes with that.
fn quoted_field(text: &str) -> Option<(String, usize)> {
    let mut field = String::new();
    let mut at = 0;
    loop {
        let quote = at + text[at..].find('"')?;
        field.push_str(&text[at..quote]);
        if text[quote + 1..].starts_with('"') {
            field.push('"');
            at = quote + 2;
        } else {
            let after = &text[quote + 1..];
            return (after.is_empty() || after.starts_with(',')).then_some((field, quote + 1));
        }
    }
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A size as Docker takes it: `64m`, `1.5GiB`; all units are powers of 1024.
fn parse_size(text: &str) -> Option<u64> {
    let end = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let unit = text[end..].trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let bytes = number * 1024_f64.powi(power);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was checked")]
    (bytes < 9.0e18).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Written, Problem> {
        read(text, &|value| Ok(value.replace("$X", "x")))
    }

    #[test]
    fn fields_are_those_of_csv() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(fields(text).unwrap(), expected, "{text}");
        };
        check("a=b,c", &["a=b", "c"]);
        check("\"a=b,c\",d", &["a=b,c", "d"]);
        check("\"a=\"\"b\"\"\"", &["a=\"b\""]);
        check("a,,b", &["a", "", "b"]);
        for text in ["\"a", "a\"b", "\"a\"b"] {
            assert!(fields(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_are_read_and_expanded() {
        let mount =
            parsed("TYPE=cache,dst=/$X,src=s,ro,id=i,sharing=locked,mode=0700,uid=1").unwrap();
        let expected = Written {
            kind: Kind::Cache,
            source: Some("s".into()),
            target: Some("/x".into()),
            read_only: Some(true),
            id: Some("i".into()),
            sharing: Some(Sharing::Locked),
            mode: Some(0o700),
            uid: Some(1),
            ..Written::default()
        };
        assert_eq!(mount, expected);
        assert_eq!(parsed("type=tmpfs,size=1.5k").unwrap().size_bytes, Some(1536));
        assert_eq!(parsed("type=tmpfs,size=64MiB").unwrap().size_bytes, Some(64 << 20));
        assert_eq!(from_of("target=/x,from=builder"), Ok(Some("builder".into())));
    }

    #[test]
    fn mistakes_are_named_as_buildkit_names_them() {
        for (text, message) in [
            ("type=foo", "unsupported mount type \"foo\""),
            ("foo=bar", "unexpected key 'foo' in 'foo=bar'"),
            ("foo", "invalid field 'foo' must be a key=value pair"),
            ("type=cache,sharing=foo", "unsupported sharing value \"foo\""),
            ("type=bind,sharing=shared", "invalid cache sharing set for bind mount"),
            ("type=tmpfs,size=foo", "invalid value for size: foo"),
            ("type=tmpfs,mode=0700", "mode not allowed for \"tmpfs\" type mounts"),
            ("required", "unexpected key 'required' for mount type 'bind'"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,src=a,id=b", "both source and id can't be set"),
            ("type=secret,id=a,from=b", "secret mount should not have a from"),
            ("type=ssh,src=a", "ssh does not support source"),
            ("type=cache,ro=maybe", "invalid value for ro: maybe"),
            ("type=cache,uid=-1", "invalid value -1 for uid"),
        ] {
            assert_eq!(parsed(text).unwrap_err().message, message, "{text}");
        }
        let hint = parsed("form=x").unwrap_err().hint;
        assert_eq!(hint.as_deref(), Some("did you mean from?"));
        let variable = from_of("from=$x").unwrap_err().message;
        assert!(variable.contains("doesn't support variable expansion"), "{variable}");
    }
}
