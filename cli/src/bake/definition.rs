//! Groups and targets of all files together, parents and overrides worked in.

use std::collections::{BTreeMap, BTreeSet};

use common::ignore;
use serde_json::{Map, Value};

use super::flags::strings;

/// Keys whose values are lists in every form, and whether a later one is added to an earlier one.
const LISTS: [(&str, bool); 13] = [
    ("annotations", true),
    ("attest", true),
    ("cache-from", true),
    ("cache-to", false),
    ("entitlements", true),
    ("inherits", true),
    ("no-cache-filter", true),
    ("output", false),
    ("platforms", false),
    ("secret", true),
    ("ssh", true),
    ("tags", false),
    ("ulimits", true),
];
/// Keys whose values are maps.
const MAPS: [&str; 4] = ["args", "contexts", "extra-hosts", "labels"];
/// The other keys.
const PLAIN: [&str; 10] = [
    "call",
    "context",
    "description",
    "dockerfile",
    "dockerfile-inline",
    "network",
    "no-cache",
    "pull",
    "shm-size",
    "target",
];
/// Other names of keys, for `--set`.
const ALIASES: [(&str, &str); 2] = [("platform", "platforms"), ("secrets", "secret")];
/// How deep groups and targets may refer to each other.
const MAX_DEPTH: usize = 32;
/// Longest name of a target.
const MAX_NAME_BYTES: usize = 200;

/// A target, its parents worked in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) values: Map<String, Value>,
    /// Whether it is there for what starts from it alone: then nothing is made of it.
    pub(crate) is_linked: bool,
}

impl Target {
    /// The targets whose results it starts from, by the names of its contexts.
    pub(crate) fn links(&self) -> BTreeMap<String, String> {
        let Some(Value::Object(contexts)) = self.values.get("contexts") else {
            return BTreeMap::new();
        };
        let link = |(name, value): (&String, &Value)| {
            Some((name.clone(), value.as_str()?.strip_prefix("target:")?.to_owned()))
        };
        contexts.iter().filter_map(link).collect()
    }
}

/// A value from the command line.
#[derive(Debug)]
struct Override {
    target: String,
    key: String,
    name: Option<String>,
    value: Option<String>,
    adds: bool,
    text: String,
}

/// Groups and targets by name.
#[derive(Debug, Default)]
pub(super) struct Definition {
    groups: BTreeMap<String, Vec<String>>,
    targets: BTreeMap<String, Map<String, Value>>,
    overrides: Vec<Override>,
}

impl Definition {
    /// Adds a group; of two with one name the later one counts.
    pub(super) fn group(&mut self, name: &str, members: Vec<String>) -> Result<(), String> {
        is_name(name)?;
        self.groups.insert(name.to_owned(), members);
        Ok(())
    }

    /// Adds a target, or what a later file says of it.
    pub(super) fn target(&mut self, name: &str, values: Map<String, Value>) -> Result<(), String> {
        is_name(name)?;
        let known = |key: &String| {
            let is_list = LISTS.iter().any(|(list, _)| list == key);
            is_list || MAPS.contains(&key.as_str()) || PLAIN.contains(&key.as_str())
        };
        if let Some(key) = values.keys().find(|key| !known(key)) {
            return Err(format!("target {name}: {key} is not supported"));
        }
        overlay(self.targets.entry(name.to_owned()).or_default(), values)
            .map_err(|error| format!("target {name}: {error}"))
    }

    /// Members of a group that files name, if there is one.
    pub(super) fn members(&self, name: &str) -> Option<&[String]> {
        self.groups.get(name).map(Vec::as_slice)
    }

    /// `TARGET.KEY[.NAME][+]=VALUE`.
    pub(super) fn set(&mut self, text: &str) -> Result<(), String> {
        let bad = || format!("--set {text}: TARGET.KEY[.NAME][+]=VALUE is expected");
        let (path, value) = match text.split_once('=') {
            Some((path, value)) => (path, Some(value.to_owned())),
            None => (text, None),
        };
        let (path, adds) = match path.strip_suffix('+') {
            Some(path) => (path, true),
            None => (path, false),
        };
        let mut path = path.splitn(3, '.');
        let (Some(target), Some(key)) = (path.next(), path.next()) else { return Err(bad()) };
        let name = path.next().map(str::to_owned);
        let key = ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key, |(_, key)| key);
        let is_list = LISTS.iter().any(|(list, _)| *list == key) && key != "inherits";
        let fits = if MAPS.contains(&key) {
            name.is_some() && !adds && (value.is_some() || key == "args")
        } else if is_list {
            name.is_none() && value.is_some()
        } else if PLAIN.contains(&key) || matches!(key, "push" | "load") {
            name.is_none() && value.is_some() && !adds
        } else {
            return Err(format!("--set {text}: {key} is not supported"));
        };
        if !fits {
            return Err(bad());
        }
        if !self.targets.keys().any(|known| is_meant(target, known)) {
            return Err(format!("--set {text}: there is no target {target}"));
        }
        let (target, key, text) = (target.to_owned(), key.to_owned(), text.to_owned());
        self.overrides.push(Override { target, key, name, value, adds, text });
        Ok(())
    }

    /// The targets that names, groups and patterns mean, producers first.
    pub(super) fn pick(&self, wanted: &[String]) -> Result<Vec<Target>, String> {
        let mut names = Vec::new();
        let default = ["default".to_owned()];
        for name in if wanted.is_empty() { &default[..] } else { wanted } {
            if !name.contains(['*', '?', '[']) {
                self.expand(name, &mut names, 0)?;
                continue;
            }
            let known = self.groups.keys().chain(self.targets.keys());
            let fitting: Vec<&String> = known.filter(|known| is_meant(name, known)).collect();
            if fitting.is_empty() {
                return Err(format!("there is no target like {name}"));
            }
            for name in fitting {
                self.expand(name, &mut names, 0)?;
            }
        }
        let mut picked = Vec::new();
        for name in &names {
            self.add(name, &names, &mut picked, 0)?;
        }
        Ok(picked)
    }

    /// The targets of a group, or of the target with that name.
    fn expand(&self, name: &str, names: &mut Vec<String>, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("the group {name} has itself in it"));
        }
        if let Some(members) = self.groups.get(name) {
            return members.iter().try_for_each(|member| {
                // A group may be called like a target that it has.
                let is_target = member == name && self.targets.contains_key(member);
                if is_target {
                    push(names, member);
                    return Ok(());
                }
                self.expand(member, names, depth + 1)
            });
        }
        if !self.targets.contains_key(name) {
            let known: Vec<&str> =
                self.groups.keys().chain(self.targets.keys()).map(String::as_str).collect();
            return Err(format!("there is no target {name}: {}", known.join(", ")));
        }
        push(names, name);
        Ok(())
    }

    /// Appends a target, after those that it starts from.
    fn add(
        &self,
        name: &str,
        wanted: &[String],
        picked: &mut Vec<Target>,
        depth: usize,
    ) -> Result<(), String> {
        if picked.iter().any(|target| target.name == name) {
            return Ok(());
        }
        if depth > MAX_DEPTH {
            return Err(format!("the target {name} needs itself"));
        }
        let values = self.resolved(name, 0)?;
        let is_linked = !wanted.iter().any(|wanted| wanted == name);
        let target = Target { name: name.to_owned(), values, is_linked };
        let producers: BTreeSet<String> = target.links().into_values().collect();
        for producer in producers {
            self.add(&producer, wanted, picked, depth + 1)?;
        }
        picked.push(target);
        Ok(())
    }

    fn resolved(&self, name: &str, depth: usize) -> Result<Map<String, Value>, String> {
        if depth > MAX_DEPTH {
            return Err(format!("the target {name} inherits from itself"));
        }
        let own = self.targets.get(name).ok_or_else(|| format!("there is no target {name}"))?;
        let mut values = Map::new();
        if let Some(parents) = own.get("inherits") {
            for parent in strings(name, parents)? {
                overlay(&mut values, self.resolved(&parent, depth + 1)?)?;
            }
        }
        overlay(&mut values, own.clone())?;
        values.remove("inherits");
        let overrides = self.overrides.iter().filter(|one| is_meant(&one.target, name));
        let mut replaced = BTreeSet::new();
        for one in overrides {
            apply(&mut values, one, replaced.insert(&one.key))?;
        }
        for (key, _) in LISTS {
            if let Some(Value::Array(items)) = values.get_mut(key) {
                let mut seen = Vec::new();
                items.retain(|item| {
                    !seen.contains(item) && {
                        seen.push(item.clone());
                        true
                    }
                });
            }
        }
        if let Some(Value::Object(contexts)) = values.get_mut("contexts") {
            contexts.retain(|_, place| place.as_str() != Some(""));
        }
        Ok(values)
    }
}

/// Puts a value from the command line in; the first one of a list takes the place of what is there.
fn apply(values: &mut Map<String, Value>, one: &Override, is_first: bool) -> Result<(), String> {
    let bad = || format!("--set {}: it does not fit what the file says", one.text);
    let key = one.key.as_str();
    if let Some(name) = &one.name {
        // An argument without value is taken from the environment, if it is there.
        let value = one.value.clone().or_else(|| std::env::var(name).ok());
        let Some(value) = value else { return Ok(()) };
        let map = values.entry(key).or_insert_with(|| Value::Object(Map::new()));
        map.as_object_mut().ok_or_else(bad)?.insert(name.clone(), Value::String(value));
        return Ok(());
    }
    let value = Value::String(one.value.clone().unwrap_or_default());
    if !LISTS.iter().any(|(list, _)| *list == key) {
        if matches!(key, "push" | "load" | "pull" | "no-cache") {
            let is_set = super::functions::boolean(&value).map_err(|_| bad())?;
            values.insert(key.to_owned(), Value::Bool(is_set));
            return Ok(());
        }
        values.insert(key.to_owned(), value);
        return Ok(());
    }
    // Annotations and attestations are never taken away.
    let adds = one.adds || matches!(key, "annotations" | "attest" | "entitlements");
    if is_first && !adds {
        values.insert(key.to_owned(), Value::Array(Vec::new()));
    }
    let list = values.entry(key).or_insert_with(|| Value::Array(Vec::new()));
    list.as_array_mut().ok_or_else(bad)?.push(value);
    Ok(())
}

fn push(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
}

fn is_meant(pattern: &str, name: &str) -> bool {
    pattern == name || ignore::component(pattern, name)
}

/// Whether a target or a group may be called so.
pub(super) fn is_name(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(fits) {
        return Ok(());
    }
    Err(format!("{name:?} is no name of a target: a-z, A-Z, 0-9, _ and - are"))
}

/// Puts values over others: maps are joined, lists joined or replaced, the rest is replaced, and what
/// is null says nothing.
fn overlay(under: &mut Map<String, Value>, over: Map<String, Value>) -> Result<(), String> {
    for (key, value) in over {
        if value.is_null() {
            continue;
        }
        let is_added = LISTS.iter().find_map(|(list, adds)| (*list == key).then_some(*adds));
        match (is_added, MAPS.contains(&key.as_str()), value) {
            (Some(adds), _, Value::Array(new)) => {
                let old = under.entry(key).or_insert_with(|| Value::Array(Vec::new()));
                match old {
                    Value::Array(old) if adds => old.extend(new),
                    old => *old = Value::Array(new),
                }
            }
            (Some(_), ..) => return Err(format!("{key}: a list is expected")),
            (None, true, Value::Object(new)) => {
                let old = under.entry(key).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(old) = old {
                    old.extend(new.into_iter().filter(|(_, value)| !value.is_null()));
                }
            }
            (None, true, _) => return Err(format!("{key}: a map is expected")),
            (None, false, Value::Array(_) | Value::Object(_)) => {
                return Err(format!("{key}: one value is expected"));
            }
            (None, false, value) => {
                under.insert(key, value);
            }
        }
    }
    Ok(())
}
