//! From files to targets.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::body::{Block, Body, Kind};
use super::compose;
use super::definition::{Definition, Target};
use super::evaluate::{Evaluator, Lookup, Scope};
use super::flags::strings;
use super::functions::{list, text};

/// Most targets that matrices make.
const MAX_TARGETS: usize = 1000;

/// A file.
#[derive(Debug)]
pub(crate) struct Source {
    /// What it is called.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// In what a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Hcl,
    Json,
    Compose,
}

impl Source {
    fn form(&self) -> Form {
        let ending = self.name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
        match ending.as_deref() {
            Some("hcl") => Form::Hcl,
            Some("json") => Form::Json,
            Some("yaml" | "yml") => Form::Compose,
            _ if self.text.trim_start().starts_with('{') => Form::Json,
            _ if compose::has_services(&self.text) => Form::Compose,
            _ => Form::Hcl,
        }
    }
}

/// What files say, the later ones over the earlier ones, of the targets that are wanted; producers
/// first. `lookup` has the values of variables from outside.
pub(crate) fn read(
    files: &[Source],
    wanted: &[String],
    sets: &[String],
    lookup: Lookup<'_>,
) -> Result<Vec<Target>, String> {
    let mut definition = Definition::default();
    let of = |form| files.iter().filter(move |file| file.form() == form);
    compose::add(&mut definition, &of(Form::Compose).collect::<Vec<_>>(), lookup)?;
    let mut body = Body::default();
    for file in files {
        match file.form() {
            Form::Hcl => body.add_hcl(&file.name, &file.text)?,
            Form::Json => body.add_json(&file.name, &file.text)?,
            Form::Compose => {}
        }
    }
    let evaluator = Evaluator::new(&body, lookup);
    evaluator.check()?;
    add_blocks(&mut definition, &body, &evaluator)?;
    for set in sets {
        definition.set(set)?;
    }
    definition.pick(wanted)
}

fn add_blocks(
    definition: &mut Definition,
    body: &Body,
    evaluator: &Evaluator<'_>,
) -> Result<(), String> {
    // Names of matrices stand for all that they make.
    let mut made: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut count = 0;
    for block in &body.blocks {
        let word = if block.kind == Kind::Group { "group" } else { "target" };
        let place = |error: String| format!("{}: {word} {}: {error}", block.file, block.label);
        if block.kind == Kind::Group {
            let mut values = values(block, evaluator, &Scope::default()).map_err(place)?;
            values.remove("description");
            let members = values.remove("targets").unwrap_or(Value::Array(Vec::new()));
            if let Some(key) = values.keys().next() {
                return Err(place(format!("{key} is not supported")));
            }
            let members = strings("targets", &members).map_err(place)?;
            definition.group(&block.label, members).map_err(place)?;
            continue;
        }
        for scope in scopes(block, evaluator).map_err(place)? {
            count += 1;
            if count > MAX_TARGETS {
                return Err(place(format!("the matrices make more than {MAX_TARGETS} targets")));
            }
            let mut values = values(block, evaluator, &scope).map_err(place)?;
            let has_matrix = values.remove("matrix").is_some();
            let name = match values.remove("name") {
                Some(name) if has_matrix => text(&name).map_err(place)?,
                Some(_) => return Err(place("a name is for targets with a matrix".to_owned())),
                None if has_matrix => {
                    return Err(place("a target with a matrix has a name".to_owned()));
                }
                None => block.label.clone(),
            };
            definition.target(&name, values).map_err(place)?;
            if has_matrix {
                let names = made.entry(&block.label).or_default();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
    }
    for (label, names) in made {
        if definition.members(label).is_none() && names != [label] {
            definition.group(label, names)?;
        }
    }
    Ok(())
}

/// What the axes of a target's matrix stand for, one for each combination.
fn scopes(block: &Block, evaluator: &Evaluator<'_>) -> Result<Vec<Scope<'static>>, String> {
    let mut all = vec![BTreeMap::new()];
    if let Some(matrix) = block.attributes.get("matrix") {
        let matrix = evaluator.value(matrix, &Scope::default())?;
        let axes = matrix.as_object().ok_or("a matrix is a map of lists")?;
        for (axis, values) in axes {
            let values = list(values).map_err(|_| format!("the axis {axis} is no list"))?;
            if all.len().saturating_mul(values.len()) > MAX_TARGETS {
                return Err(format!("the matrix makes more than {MAX_TARGETS} targets"));
            }
            let with = |known: BTreeMap<String, Value>| {
                let add = move |value: &Value| {
                    let mut known = known.clone();
                    known.insert(axis.clone(), value.clone());
                    known
                };
                values.iter().map(add).collect::<Vec<_>>()
            };
            all = all.into_iter().flat_map(with).collect();
        }
    }
    Ok(all.into_iter().map(Scope::of).collect())
}

fn values(
    block: &Block,
    evaluator: &Evaluator<'_>,
    scope: &Scope<'_>,
) -> Result<Map<String, Value>, String> {
    let mut values = Map::new();
    for (name, expr) in &block.attributes {
        // The axes are no names within the matrix itself.
        let value = if name == "matrix" {
            Value::Bool(true)
        } else {
            evaluator.value(expr, scope).map_err(|error| format!("{name}: {error}"))?
        };
        values.insert(name.clone(), value);
    }
    Ok(values)
}
