//! Compose files: a service with `build` is a target.
//!
//! What compose knows of a service beside its build has no meaning here; what it knows of builds and
//! is not built is refused.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::definition::Definition;
use super::functions::text;
use super::interpolate::{Variables, interpolate, variables};
use super::source::Source;

/// Keys of `build` that mean the same as a target's.
const SAME: [(&str, &str); 12] = [
    ("cache_from", "cache-from"),
    ("cache_to", "cache-to"),
    ("context", "context"),
    ("dockerfile", "dockerfile"),
    ("dockerfile_inline", "dockerfile-inline"),
    ("network", "network"),
    ("no_cache", "no-cache"),
    ("no_cache_filter", "no-cache-filter"),
    ("platforms", "platforms"),
    ("pull", "pull"),
    ("tags", "tags"),
    ("target", "target"),
];
/// Keys of `x-bake`.
const EXTENSION: [&str; 11] = [
    "cache-from",
    "cache-to",
    "contexts",
    "no-cache",
    "no-cache-filter",
    "output",
    "platforms",
    "pull",
    "secret",
    "ssh",
    "tags",
];
/// How deep a file may be nested.
const MAX_DEPTH: usize = 100;

/// Whether a text is a compose file.
pub(super) fn has_services(text: &str) -> bool {
    serde_saphyr::from_str::<Value>(text).is_ok_and(|value| value.get("services").is_some())
}

/// Adds the services of files, the later ones over the earlier ones.
pub(super) fn add(
    definition: &mut Definition,
    files: &[&Source],
    lookup: Variables<'_>,
) -> Result<(), String> {
    if files.is_empty() {
        return Ok(());
    }
    let local = dotenv(Path::new(".env"), lookup)?;
    let known = |name: &str| lookup(name).or_else(|| local.get(name).cloned());
    let mut all = Map::new();
    for file in files {
        let place = |error: String| format!("{}: {error}", file.name);
        let value: Value =
            serde_saphyr::from_str(&file.text).map_err(|error| place(error.to_string()))?;
        let Value::Object(value) = value else { return Err(place("no compose file".to_owned())) };
        if value.contains_key("include") {
            return Err(place("include is not supported: name the files with -f".to_owned()));
        }
        let kept = value.into_iter().filter(|(key, _)| key == "services" || key == "secrets");
        for (key, value) in kept {
            let value =
                interpolated(value, &known, 0).map_err(|error| place(format!("{key}: {error}")))?;
            let Value::Object(entries) = value else {
                return Err(place(format!("{key}: a map is expected")));
            };
            let section = all.entry(key.clone()).or_insert_with(|| json!({}));
            let Value::Object(section) = section else { continue };
            for (name, entry) in entries {
                let entry = if key == "services" { plain(entry) } else { Ok(entry) };
                let entry = entry.map_err(|error| place(format!("{name}: {error}")))?;
                join(section.entry(name).or_insert(Value::Null), entry);
            }
        }
    }
    let section = |key: &str| all.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    let secrets = section("secrets");
    let mut members = Vec::new();
    for (service, values) in section("services") {
        let name = service.replace('.', "_");
        let place = |error: String| format!("service {service}: {error}");
        let Some(build) = values.get("build").and_then(Value::as_object) else { continue };
        let environment = environment(&values, &known).map_err(place)?;
        let of = |name: &str| environment.get(name).cloned().or_else(|| known(name));
        let mut target = target(build, &secrets, &of).map_err(place)?;
        if let (None, Some(image)) = (target.get("tags"), values.get("image")) {
            target.insert("tags".to_owned(), json!([image]));
        }
        definition.target(&name, target).map_err(place)?;
        members.push(name);
    }
    definition.group("default", members)
}

fn dotenv(path: &Path, outer: Variables<'_>) -> Result<BTreeMap<String, String>, String> {
    if !path.is_file() {
        return Ok(BTreeMap::new());
    }
    let place = |error: String| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| place(error.to_string()))?;
    variables(&text, outer).map_err(place)
}

/// Variables put into every text.
fn interpolated(value: Value, known: Variables<'_>, depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err("nested too deep".to_owned());
    }
    Ok(match value {
        Value::String(text) => Value::String(interpolate(&text, known)?),
        Value::Array(items) => {
            let items = items.into_iter().map(|item| interpolated(item, known, depth + 1));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Value::Object(fields) => {
            let field = |(key, item): (String, Value)| {
                let item = interpolated(item, known, depth + 1);
                item.map_err(|error| format!("{key}: {error}")).map(|item| (key, item))
            };
            Value::Object(fields.into_iter().map(field).collect::<Result<_, String>>()?)
        }
        value => value,
    })
}

/// A service or secret with every short form written out, so that two files of it can be joined.
fn plain(entry: Value) -> Result<Value, String> {
    let Value::Object(mut entry) = entry else { return Ok(json!({})) };
    if entry.contains_key("extends") {
        return Err("extends is not supported: docker compose config writes it out".to_owned());
    }
    if let Some(environment) = entry.remove("environment") {
        entry.insert("environment".to_owned(), pairs(environment, '=')?);
    }
    match entry.remove("build") {
        None | Some(Value::Null) => {}
        Some(Value::Object(mut build)) => {
            let marks = [('=', "args"), ('=', "labels"), ('=', "additional_contexts")];
            for (mark, key) in marks.into_iter().chain([('=', "extra_hosts"), ('=', "ssh")]) {
                if let Some(value) = build.remove(key) {
                    let value = pairs(value, mark).map_err(|error| format!("{key}: {error}"))?;
                    build.insert(key.to_owned(), value);
                }
            }
            entry.insert("build".to_owned(), Value::Object(build));
        }
        Some(context) => {
            entry.insert("build".to_owned(), json!({"context": text(&context)?}));
        }
    }
    Ok(Value::Object(entry))
}

/// A map, or a list of `NAME=VALUE` as one; hosts are also written `NAME:ADDRESS`.
fn pairs(value: Value, mark: char) -> Result<Value, String> {
    match value {
        Value::Null => Ok(json!({})),
        Value::Object(fields) => Ok(Value::Object(fields)),
        Value::Array(items) => {
            let pair = |item: &Value| {
                let item = text(item)?;
                Ok(match item.split_once(mark).or_else(|| item.split_once(':')) {
                    Some((name, value)) => (name.to_owned(), Value::from(value)),
                    None => (item, Value::Null),
                })
            };
            Ok(Value::Object(items.iter().map(pair).collect::<Result<_, String>>()?))
        }
        _ => Err("a map or a list is expected".to_owned()),
    }
}

/// Puts what a later file says over what an earlier one does: lists are added to.
fn join(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                join(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(under), Value::Array(over)) => {
            for item in over {
                if !under.contains(&item) {
                    under.push(item);
                }
            }
        }
        (_, Value::Null) => {}
        (under, over) => *under = over,
    }
}

/// What arguments without a value may be taken from.
fn environment(service: &Value, known: Variables<'_>) -> Result<BTreeMap<String, String>, String> {
    let mut all = BTreeMap::new();
    let files = match service.get("env_file") {
        Some(Value::Array(files)) => files.clone(),
        Some(file) => vec![file.clone()],
        None => Vec::new(),
    };
    for file in files {
        let (path, required) = match &file {
            Value::Object(file) => {
                let path = file.get("path").and_then(Value::as_str);
                (path, file.get("required").and_then(Value::as_bool).unwrap_or(true))
            }
            file => (file.as_str(), true),
        };
        let path = Path::new(path.ok_or("env_file: a path is expected")?);
        if required && !path.is_file() {
            return Err(format!("env_file: {} is no file", path.display()));
        }
        all.extend(dotenv(path, known)?);
    }
    if let Some(Value::Object(fields)) = service.get("environment") {
        for (name, value) in fields {
            match value {
                Value::Null => all.extend(known(name).map(|value| (name.clone(), value))),
                value => {
                    all.insert(name.clone(), text(value)?);
                }
            }
        }
    }
    Ok(all)
}

fn target(
    build: &Map<String, Value>,
    secrets: &Map<String, Value>,
    variables: Variables<'_>,
) -> Result<Map<String, Value>, String> {
    let mut target = Map::new();
    for (key, value) in build {
        let fields = || value.as_object().ok_or_else(|| format!("{key}: a map is expected"));
        if let Some((_, name)) = SAME.iter().find(|(name, _)| name == key) {
            target.insert((*name).to_owned(), value.clone());
            continue;
        }
        let (name, value) = match key.as_str() {
            "args" => {
                let of = |(name, value): (&String, &Value)| {
                    let value = match value {
                        Value::Null => Value::from(variables(name)?),
                        value => Value::from(text(value).ok()?),
                    };
                    Some((name.clone(), value))
                };
                ("args", Value::Object(fields()?.iter().filter_map(of).collect()))
            }
            "labels" => {
                let of = |(name, value): (&String, &Value)| {
                    (name.clone(), Value::from(text(value).unwrap_or_default()))
                };
                ("labels", Value::Object(fields()?.iter().map(of).collect()))
            }
            "additional_contexts" => ("contexts", contexts(fields()?)?),
            "extra_hosts" => ("extra-hosts", Value::Object(fields()?.clone())),
            "ssh" => {
                let of = |(name, path): (&String, &Value)| match path {
                    Value::Null => name.clone(),
                    path => format!("{name}={}", text(path).unwrap_or_default()),
                };
                ("ssh", fields()?.iter().map(of).collect())
            }
            "shm_size" => ("shm-size", Value::from(text(value)?)),
            "entitlements" => ("entitlements", value.clone()),
            "ulimits" => {
                let of = |(name, limit): (&String, &Value)| match limit {
                    Value::Object(both) => {
                        let side = |key: &str| both.get(key).map_or(Ok(String::new()), text);
                        Ok(format!("{name}={}:{}", side("soft")?, side("hard")?))
                    }
                    limit => Ok(format!("{name}={}", text(limit)?)),
                };
                let limits = fields()?.iter().map(of);
                ("ulimits", limits.collect::<Result<Vec<_>, String>>()?.into())
            }
            "secrets" => {
                let all = value.as_array().ok_or("secrets: a list is expected")?;
                let all = all.iter().map(|one| secret(one, secrets));
                ("secret", all.collect::<Result<Vec<_>, _>>()?.into())
            }
            "sbom" | "provenance" => {
                let word = text(value)?;
                if word != "false" {
                    return Err(format!("build: {key} is not supported"));
                }
                continue;
            }
            "x-bake" => {
                extend(&mut target, fields()?)?;
                continue;
            }
            key if key.starts_with("x-") => continue,
            key => return Err(format!("build: {key} is not supported")),
        };
        match (target.get_mut(name), value) {
            // `x-bake` may have been read before.
            (Some(Value::Object(known)), Value::Object(value)) => known.extend(value),
            (_, value) => {
                target.insert(name.to_owned(), value);
            }
        }
    }
    Ok(target)
}

/// Services that are named as contexts are targets.
fn contexts(fields: &Map<String, Value>) -> Result<Value, String> {
    let of = |(name, place): (&String, &Value)| {
        let place = text(place)?;
        let service = ["service:", "target:"].iter().find_map(|start| place.strip_prefix(start));
        let place = match service {
            Some(service) => format!("target:{}", service.replace('.', "_")),
            None => place,
        };
        Ok((name.clone(), Value::String(place)))
    };
    Ok(Value::Object(fields.iter().map(of).collect::<Result<_, String>>()?))
}

fn secret(one: &Value, secrets: &Map<String, Value>) -> Result<Value, String> {
    let id = match one {
        Value::Object(fields) => fields.get("source").ok_or("secrets: a source is expected")?,
        one => one,
    };
    let id = text(id)?;
    let of = |key: &str| secrets.get(&id).and_then(|secret| secret.get(key)).map(text);
    Ok(match (of("file"), of("environment")) {
        (Some(file), _) => json!({"id": id, "src": file?}),
        (None, Some(variable)) => json!({"id": id, "env": variable?}),
        (None, None) => return Err(format!("secret {id}: it has no file and no environment")),
    })
}

/// `x-bake`: lists are added to, or texts with blanks between.
fn extend(target: &mut Map<String, Value>, fields: &Map<String, Value>) -> Result<(), String> {
    for (key, value) in fields {
        if !EXTENSION.contains(&key.as_str()) {
            return Err(format!("build: x-bake: {key} is not supported"));
        }
        if key == "contexts" {
            let new = value.as_object().ok_or("build: x-bake: contexts: a map is expected")?;
            let known = target.entry(key.clone()).or_insert_with(|| json!({}));
            join(known, contexts(new)?);
            continue;
        }
        let value = match value {
            Value::String(text) if !matches!(key.as_str(), "pull" | "no-cache") => {
                text.split_whitespace().map(Value::from).collect()
            }
            value => value.clone(),
        };
        join(target.entry(key.clone()).or_insert(Value::Null), value);
    }
    Ok(())
}
