//! Two images side by side.

use std::collections::BTreeSet;

use e2e::{ArchivedImage, Node};
use serde_json::Value;

/// What differs, a line each: ours first.
pub(crate) fn differences(
    ours: &ArchivedImage,
    theirs: &ArchivedImage,
    times: bool,
) -> Vec<String> {
    let mut lines = Vec::new();
    for key in ["architecture", "os", "variant", "author"] {
        values(&mut lines, key, &ours.config[key], &theirs.config[key]);
    }
    let keys = |image: &ArchivedImage| -> BTreeSet<String> {
        image.config["config"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.clone())
            .collect()
    };
    for key in keys(ours).union(&keys(theirs)) {
        let name = format!("config.{key}");
        values(&mut lines, &name, &ours.config["config"][key], &theirs.config["config"][key]);
    }
    if ours.layers != theirs.layers {
        lines.push(format!("layers: {} / {}", ours.layers, theirs.layers));
    }
    history(&mut lines, &ours.config["history"], &theirs.config["history"]);
    let paths: BTreeSet<&String> = ours.tree.keys().chain(theirs.tree.keys()).collect();
    for path in paths {
        match (ours.tree.get(path), theirs.tree.get(path)) {
            (Some(_), None) => lines.push(format!("file {path}: only ours")),
            (None, Some(_)) => lines.push(format!("file {path}: only theirs")),
            (Some(ours), Some(theirs)) => nodes(&mut lines, path, ours, theirs, times),
            (None, None) => {}
        }
    }
    lines
}

/// A file in one line: path, kind, mode, owner, and its content or target.
pub(crate) fn listed(path: &str, node: &Node) -> String {
    let Node { kind, mode, uid, gid, link, content, .. } = node;
    format!("{path} {kind} {mode:o} {uid}:{gid} {link}{content}").trim_end().to_owned()
}

/// What of `expected` an image does not hold, and what it holds and should not.
pub(crate) fn missing(image: &ArchivedImage, expected: &[&str]) -> Vec<String> {
    let list: BTreeSet<String> = image.tree.iter().map(|(path, node)| listed(path, node)).collect();
    let mut lines = Vec::new();
    for line in expected {
        match line.strip_prefix('!') {
            Some(path) if image.tree.contains_key(path) => lines.push(format!("there is {path}")),
            None if !list.contains(*line) => {
                let path = line.split(' ').next().unwrap_or_default();
                let found = image.tree.get(path).map(|node| listed(path, node));
                lines.push(format!("file {line:?} is {found:?}"));
            }
            _ => {}
        }
    }
    lines
}

/// Absent, null, empty and false are one.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn values(lines: &mut Vec<String>, name: &str, ours: &Value, theirs: &Value) {
    if ours != theirs && !(is_empty(ours) && is_empty(theirs)) {
        lines.push(format!("{name}: {ours} / {theirs}"));
    }
}

fn history(lines: &mut Vec<String>, ours: &Value, theirs: &Value) {
    let none = Vec::new();
    let (ours, theirs) = (ours.as_array().unwrap_or(&none), theirs.as_array().unwrap_or(&none));
    if ours.len() != theirs.len() {
        lines.push(format!("history: {} / {} entries", ours.len(), theirs.len()));
    }
    for (number, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        for key in ["created_by", "empty_layer", "comment"] {
            values(lines, &format!("history {number} {key}"), &ours[key], &theirs[key]);
        }
    }
}

fn nodes(lines: &mut Vec<String>, path: &str, ours: &Node, theirs: &Node, times: bool) {
    let mut differ = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            lines.push(format!("file {path}: {what}: {ours} / {theirs}"));
        }
    };
    differ("kind", ours.kind.to_owned(), theirs.kind.to_owned());
    if ours.kind != "symlink" {
        differ("mode", format!("{:o}", ours.mode), format!("{:o}", theirs.mode));
    }
    let owner = |node: &Node| format!("{}:{}", node.uid, node.gid);
    differ("owner", owner(ours), owner(theirs));
    differ("link", ours.link.clone(), theirs.link.clone());
    differ("content", format!("{:?}", ours.content), format!("{:?}", theirs.content));
    differ("device", format!("{:?}", ours.device), format!("{:?}", theirs.device));
    differ("attributes", format!("{:?}", ours.attributes), format!("{:?}", theirs.attributes));
    differ("same as", format!("{:?}", ours.same_as), format!("{:?}", theirs.same_as));
    if times {
        differ("time", ours.modified.to_string(), theirs.modified.to_string());
    }
}
