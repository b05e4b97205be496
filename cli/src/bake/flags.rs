//! What a target's values are as flags of `build`.

use serde_json::Value;

use super::definition::Target;
use super::functions::boolean;

/// The strings of a list.
pub(super) fn strings(of: &str, value: &Value) -> Result<Vec<String>, String> {
    let wrong = || format!("{of}: a list of strings is expected");
    let list = value.as_array().ok_or_else(wrong)?;
    list.iter().map(|item| text(item).ok_or_else(wrong)).collect()
}

/// A string, or an object as the flag that it stands for: `k=v,k=v`.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        // An agent with key files.
        Value::Object(fields) if fields.contains_key("paths") => {
            let paths = fields.get("paths")?.as_array()?;
            let paths = paths.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
            Some(format!("{}={}", fields.get("id")?.as_str()?, paths.join(",")))
        }
        Value::Object(fields) if fields.len() == 1 && fields.contains_key("id") => {
            fields.get("id").and_then(scalar)
        }
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| {
                let value = scalar(value)?;
                let needs_quotes = value.contains([',', '"']);
                let field = format!("{key}={value}");
                Some(if needs_quotes {
                    format!("\"{}\"", field.replace('"', "\"\""))
                } else {
                    field
                })
            };
            Some(fields.iter().map(field).collect::<Option<Vec<_>>>()?.join(","))
        }
        _ => None,
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

/// The flags of `build` that a target's values are; the context comes last.
pub(crate) fn flags(target: &Target) -> Result<Vec<String>, String> {
    let mut flags = Vec::new();
    let mut context = ".".to_owned();
    let name = &target.name;
    for (key, value) in &target.values {
        let wrong = || format!("target {name}: {key}: {value} cannot be used");
        let word = || scalar(value).ok_or_else(wrong);
        let is_set = || boolean(&Value::String(word()?)).map_err(|_| wrong());
        let flag = match key.as_str() {
            _ if value.is_null() => continue,
            "context" => {
                let word = word()?;
                context = match word.strip_prefix("cwd://") {
                    Some("") => ".".to_owned(),
                    Some(path) => path.to_owned(),
                    None => word,
                };
                continue;
            }
            // What is there for others alone is not made.
            "tags" | "output" | "push" | "load" if target.is_linked => continue,
            "push" | "load" if !is_set()? => {
                return Err(format!("target {name}: {key}=false is not supported"));
            }
            // Told apart by whoever reads the file, or of no meaning for a build.
            "dockerfile" | "dockerfile-inline" | "description" => continue,
            "contexts" => {
                flags.extend(pairs(value, "build-context", false).ok_or_else(wrong)?);
                continue;
            }
            "args" => {
                flags.extend(pairs(value, "build-arg", true).ok_or_else(wrong)?);
                continue;
            }
            "labels" => {
                flags.extend(pairs(value, "label", true).ok_or_else(wrong)?);
                continue;
            }
            "extra-hosts" => {
                flags.extend(pairs(value, "add-host", true).ok_or_else(wrong)?);
                continue;
            }
            "no-cache" | "pull" | "push" | "load" => {
                if is_set()? {
                    flags.push(format!("--{key}"));
                }
                continue;
            }
            "call" if matches!(word()?.as_str(), "" | "build") => continue,
            "target" => "target",
            "network" => "network",
            "shm-size" => "shm-size",
            "tags" => "tag",
            "platforms" => "platform",
            "output" => "output",
            "secret" => "secret",
            "ssh" => "ssh",
            "cache-from" => "cache-from",
            "cache-to" => "cache-to",
            "no-cache-filter" => "no-cache-filter",
            "ulimits" => "ulimit",
            "annotations" => "annotation",
            "attest" => "attest",
            "entitlements" => "allow",
            _ => return Err(format!("target {name}: {key} is not supported")),
        };
        let words = match value {
            Value::Array(_) => strings(key, value)?,
            _ => vec![word()?],
        };
        flags.extend(words.into_iter().map(|word| format!("--{flag}={word}")));
    }
    flags.extend(["--".to_owned(), context]);
    Ok(flags)
}

/// `--flag=NAME=VALUE` for each pair; a missing value comes from the environment. Contexts that are
/// results of other targets are no flags.
fn pairs(value: &Value, flag: &str, takes_targets: bool) -> Option<Vec<String>> {
    let mut flags = Vec::new();
    for (name, value) in value.as_object()? {
        match value {
            Value::Null => flags.push(format!("--{flag}={name}")),
            value => {
                let value = scalar(value)?;
                if takes_targets || !value.starts_with("target:") {
                    flags.push(format!("--{flag}={name}={value}"));
                }
            }
        }
    }
    Some(flags)
}
