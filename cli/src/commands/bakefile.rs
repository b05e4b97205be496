//! The JSON form of bake files: groups and targets.
//!
//! What `docker buildx bake --print` writes can be read here. Variables, functions and matrices are
//! what it has worked out by then; files that still have them are refused.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Says how to get the form that can be read.
const HINT: &str = "docker buildx bake --print writes the file that can be read here";
/// Keys whose values are lists in every form.
const LISTS: [&str; 11] = [
    "annotations",
    "attest",
    "cache-from",
    "cache-to",
    "entitlements",
    "no-cache-filter",
    "output",
    "platforms",
    "secret",
    "ssh",
    "tags",
];
/// Other names of keys, for `--set`.
const ALIASES: [(&str, &str); 2] = [("platform", "platforms"), ("secrets", "secret")];
/// How deep groups and targets may refer to each other.
const MAX_DEPTH: usize = 32;

/// A target, its parents worked in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) values: Map<String, Value>,
}

impl Target {
    /// The targets whose results it starts from, by the names of its contexts.
    pub(super) fn links(&self) -> BTreeMap<String, String> {
        let Some(Value::Object(contexts)) = self.values.get("contexts") else {
            return BTreeMap::new();
        };
        let link = |(name, value): (&String, &Value)| {
            Some((name.clone(), value.as_str()?.strip_prefix("target:")?.to_owned()))
        };
        contexts.iter().filter_map(link).collect()
    }
}

/// Reads files, the later ones over the earlier ones, and picks targets: producers first.
pub(super) fn read(
    files: &[String],
    wanted: &[String],
    sets: &[String],
) -> Result<Vec<Target>, String> {
    let mut all = File::default();
    for text in files {
        all.add(text)?;
    }
    for set in sets {
        all.set(set)?;
    }
    let mut names = Vec::new();
    let default = ["default".to_owned()];
    for name in if wanted.is_empty() { &default[..] } else { wanted } {
        all.expand(name, &mut names, 0)?;
    }
    let mut picked = Vec::new();
    for name in names {
        all.pick(&name, &mut picked, 0)?;
    }
    Ok(picked)
}

#[derive(Default)]
struct File {
    groups: BTreeMap<String, Vec<String>>,
    targets: BTreeMap<String, Map<String, Value>>,
}

impl File {
    fn add(&mut self, text: &str) -> Result<(), String> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| format!("this is no JSON ({error}): {HINT}"))?;
        let Value::Object(file) = value else { return Err(format!("no object: {HINT}")) };
        for (key, value) in file {
            match (key.as_str(), value) {
                ("group", Value::Object(groups)) => {
                    for (name, group) in groups {
                        let members = strings(&name, group.get("targets").unwrap_or(&Value::Null))?;
                        self.groups.insert(name, members);
                    }
                }
                ("target", Value::Object(targets)) => {
                    for (name, target) in targets {
                        let Value::Object(values) = target else {
                            return Err(format!("the target {name} is no object"));
                        };
                        overlay(self.targets.entry(name).or_default(), values);
                    }
                }
                (key, _) => return Err(format!("{key} is not supported: {HINT}")),
            }
        }
        Ok(())
    }

    /// `TARGET.KEY[.NAME]=VALUE`.
    fn set(&mut self, text: &str) -> Result<(), String> {
        let bad = || format!("--set {text}: TARGET.KEY[.NAME]=VALUE is expected");
        let (path, value) = text.split_once('=').ok_or_else(bad)?;
        let mut path = path.splitn(3, '.');
        let (Some(target), Some(key)) = (path.next(), path.next()) else { return Err(bad()) };
        let (name, mut count) = (path.next(), 0);
        let key = ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key, |(_, key)| key);
        for (_, values) in
            self.targets.iter_mut().filter(|(known, _)| target == "*" || *known == target)
        {
            count += 1;
            let value = Value::String(value.to_owned());
            match name {
                Some(name) => {
                    let map = values.entry(key).or_insert_with(|| Value::Object(Map::new()));
                    let Value::Object(map) = map else { return Err(bad()) };
                    map.insert(name.to_owned(), value);
                }
                None if LISTS.contains(&key) => {
                    values.insert(key.to_owned(), Value::Array(vec![value]));
                }
                None => {
                    values.insert(key.to_owned(), value);
                }
            }
        }
        if count == 0 { Err(format!("--set {text}: there is no target {target}")) } else { Ok(()) }
    }

    /// The targets of a group, or of the target with that name.
    fn expand(&self, name: &str, names: &mut Vec<String>, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("the group {name} has itself in it"));
        }
        if let Some(members) = self.groups.get(name) {
            return members.iter().try_for_each(|member| self.expand(member, names, depth + 1));
        }
        if !self.targets.contains_key(name) {
            let known: Vec<&str> =
                self.groups.keys().chain(self.targets.keys()).map(String::as_str).collect();
            return Err(format!("there is no target {name}: {}", known.join(", ")));
        }
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
        Ok(())
    }

    /// Appends a target, after those that it starts from.
    fn pick(&self, name: &str, picked: &mut Vec<Target>, depth: usize) -> Result<(), String> {
        if picked.iter().any(|target| target.name == name) {
            return Ok(());
        }
        if depth > MAX_DEPTH {
            return Err(format!("the target {name} needs itself"));
        }
        let values = self.with_parents(name, 0)?;
        let target = Target { name: name.to_owned(), values };
        let producers: BTreeSet<String> = target.links().into_values().collect();
        for producer in producers {
            self.pick(&producer, picked, depth + 1)?;
        }
        picked.push(target);
        Ok(())
    }

    fn with_parents(&self, name: &str, depth: usize) -> Result<Map<String, Value>, String> {
        if depth > MAX_DEPTH {
            return Err(format!("the target {name} inherits from itself"));
        }
        let own = self.targets.get(name).ok_or_else(|| format!("there is no target {name}"))?;
        let mut values = Map::new();
        if let Some(parents) = own.get("inherits") {
            for parent in strings(name, parents)? {
                overlay(&mut values, self.with_parents(&parent, depth + 1)?);
            }
        }
        overlay(&mut values, own.clone());
        values.remove("inherits");
        Ok(values)
    }
}

/// Puts values over others: maps are joined, the rest is replaced.
fn overlay(under: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => old.extend(new),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

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
pub(super) fn flags(target: &Target) -> Result<Vec<String>, String> {
    let mut flags = Vec::new();
    let mut context = ".".to_owned();
    let name = &target.name;
    for (key, value) in &target.values {
        let wrong = || format!("target {name}: {key}: {value} cannot be used");
        let word = || scalar(value).ok_or_else(wrong);
        let is_set = || word().map(|word| matches!(word.as_str(), "true" | "1"));
        let flag = match key.as_str() {
            _ if value.is_null() => continue,
            "context" => {
                context = word()?;
                continue;
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
            "no-cache" | "pull" => {
                if is_set()? {
                    flags.push(format!("--{key}"));
                }
                continue;
            }
            "call" if word()? == "build" => continue,
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
            _ => return Err(format!("target {name}: {key} is not supported: {HINT}")),
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

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{
        "group": {"default": {"targets": ["app", "all"]}, "all": {"targets": ["tool"]}},
        "target": {
            "common": {"args": {"A": "1", "B": "2"}, "platforms": ["linux/amd64"]},
            "app": {
                "inherits": ["common"], "context": "x", "dockerfile": "D", "args": {"B": "3", "C": null},
                "contexts": {"tool": "target:tool", "dir": "./d"}, "tags": ["a", "b"], "no-cache": true,
                "output": [{"type": "oci", "dest": "a,b"}]
            },
            "tool": {"target": "t"}
        }
    }"#;

    fn read_with(wanted: &[&str], sets: &[&str]) -> Result<Vec<Target>, String> {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        read(&[FILE.to_owned()], &owned(wanted), &owned(sets))
    }

    #[test]
    fn targets_come_after_what_they_start_from() {
        let names = |wanted: &[&str]| {
            let targets = read_with(wanted, &[]).unwrap();
            targets.into_iter().map(|target| target.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["tool", "app"]);
        assert_eq!(names(&["app"]), ["tool", "app"]);
        assert_eq!(names(&["all"]), ["tool"]);
        assert!(read_with(&["none"], &[]).unwrap_err().contains("there is no target none"));
    }

    #[test]
    fn values_become_flags() {
        let targets = read_with(&["app"], &["app.args.A=9", "*.platform=linux/arm64"]).unwrap();
        let expected = [
            "--build-arg=A=9",
            "--build-arg=B=3",
            "--build-arg=C",
            "--build-context=dir=./d",
            "--no-cache",
            "--output=\"dest=a,b\",type=oci",
            "--platform=linux/arm64",
            "--tag=a",
            "--tag=b",
            "--",
            "x",
        ];
        let mut flags = flags(&targets[1]).unwrap();
        let tail = flags.len() - 2;
        flags[..tail].sort();
        assert_eq!(flags, expected);
        assert_eq!(targets[1].links()["tool"], "tool");
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (text, says) in [
            ("target \"a\" {}", "this is no JSON"),
            (r#"{"variable": {"X": {}}}"#, "variable is not supported"),
            (r#"{"target": {"default": {"matrix": {}}}}"#, "matrix is not supported"),
            (r#"{"target": {"default": {"contexts": {"x": "target:default"}}}}"#, "needs itself"),
            (r#"{"target": {"default": {"inherits": ["default"]}}}"#, "inherits from itself"),
            (r#"{"group": {"default": {"targets": ["default"]}}}"#, "has itself in it"),
            (r#"{"target": {"default": {"tags": "a"}, "x": 1}}"#, "is no object"),
        ] {
            let made = read(&[text.to_owned()], &[], &[])
                .and_then(|targets| targets.iter().map(flags).collect::<Result<Vec<_>, _>>());
            let error = made.unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
