//! Configuration: one TOML file, each value also as an environment variable.
//!
//! `SLIPWAY_DATABASE_URL` is the key `url` of section `[database]`: section names are one word, the
//! rest is the key. Unknown keys are errors: a misspelt setting must not be silently ignored. Tables
//! of tables, such as `[registries."docker.io"]`, come from the file only.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{path} is not valid TOML: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A key is unknown or has a wrong value.
    #[error("invalid configuration: {0}")]
    Invalid(String),
    /// A variable names no key.
    #[error("the environment variable {0} names no setting: expected SLIPWAY_<SECTION>_<KEY>")]
    Variable(String),
}

/// Reads `path`, if given, and lays the variables that start with `SLIPWAY_` and name one of
/// `sections` over it.
pub fn load<T: DeserializeOwned>(
    path: Option<&Path>,
    sections: &[&str],
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    let mut table = match path {
        Some(path) => read(path)?,
        None => Table::new(),
    };
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix("SLIPWAY_") else {
            continue;
        };
        let rest = rest.to_ascii_lowercase();
        let Some((section, key)) = rest.split_once('_') else {
            continue;
        };
        // Other programs of Slipway have sections of their own.
        if !sections.contains(&section) {
            continue;
        }
        let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(section) = entry else {
            return Err(ConfigError::Variable(name));
        };
        section.insert(key.to_owned(), parse_value(&value));
    }
    T::deserialize(table).map_err(|error| ConfigError::Invalid(error.to_string().trim().to_owned()))
}

fn read(path: &Path) -> Result<Table, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        path: path.to_owned(),
        message: error.to_string(),
    })
}

/// A value as TOML would have it where it is TOML (`true`, `3`, `["a"]`), else the text itself.
fn parse_value(text: &str) -> Value {
    format!("value = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"))
        .filter(|value| !matches!(value, Value::Datetime(_) | Value::Float(_)))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Config {
        server: Server,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Server {
        listen_address: String,
        #[serde(default)]
        slots: u32,
    }

    fn variables(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn variables_win_over_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[server]\nlisten_address = \"a\"\nslots = 1\n").unwrap();
        let over =
            variables(&[("SLIPWAY_SERVER_SLOTS", "7"), ("SLIPWAY_OTHER_X", "1"), ("HOME", "/")]);
        let config: Config = load(Some(file.path()), &["server"], over).unwrap();
        assert_eq!(config.server, Server { listen_address: "a".into(), slots: 7 });
    }

    #[test]
    fn unknown_keys_are_named() {
        let over =
            variables(&[("SLIPWAY_SERVER_LISTEN_ADDRESS", "a"), ("SLIPWAY_SERVER_SLOTZ", "7")]);
        let error = load::<Config>(None, &["server"], over).unwrap_err();
        assert!(error.to_string().contains("slotz"), "{error}");
    }

    #[test]
    fn text_that_looks_like_a_list_is_one() {
        assert_eq!(parse_value("[\"a\"]"), Value::Array(vec![Value::String("a".into())]));
        assert_eq!(parse_value("127.0.0.1:80"), Value::String("127.0.0.1:80".into()));
        assert_eq!(parse_value("true"), Value::Boolean(true));
    }
}
