//! The blocks of HCL files and of their JSON form, not yet evaluated.

use std::collections::BTreeMap;

use hcl::Expression;
use hcl::structure::{BlockLabel, Structure};
use serde_json::{Map, Value};

/// An expression of either form.
#[derive(Debug, Clone)]
pub(super) enum Expr {
    Hcl(Expression),
    /// Strings are templates.
    Json(Value),
}

impl Expr {
    /// The word that it is, where only a name makes sense.
    pub(super) fn word(&self) -> Option<&str> {
        match self {
            Self::Hcl(Expression::Variable(name)) => Some(name.as_str()),
            Self::Json(Value::String(name)) => Some(name),
            _ => None,
        }
    }

    /// The words that it lists, or the one that it is.
    fn words(&self) -> Option<Vec<String>> {
        let owned = |expr: Expr| expr.word().map(str::to_owned);
        match self {
            expr if expr.word().is_some() => Some(vec![owned(expr.clone())?]),
            Self::Hcl(Expression::Array(list)) => {
                list.iter().map(|item| owned(Self::Hcl(item.clone()))).collect()
            }
            Self::Json(Value::Array(list)) => {
                list.iter().map(|item| owned(Self::Json(item.clone()))).collect()
            }
            _ => None,
        }
    }
}

/// Attributes by name.
pub(super) type Attributes = BTreeMap<String, Expr>;

/// A declared variable.
#[derive(Debug, Clone, Default)]
pub(super) struct Variable {
    pub(super) default: Option<Expr>,
    pub(super) kind: Option<Expr>,
    /// What has to be true, each with what is said if it is not.
    pub(super) validations: Vec<Attributes>,
}

/// A function of a file.
#[derive(Debug, Clone)]
pub(super) struct Function {
    pub(super) parameters: Vec<String>,
    /// Takes what is left of the arguments.
    pub(super) rest: Option<String>,
    pub(super) result: Expr,
}

/// What a block describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Group,
    Target,
}

/// A group or a target.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) kind: Kind,
    pub(super) label: String,
    /// The file that it is of.
    pub(super) file: String,
    pub(super) attributes: Attributes,
}

/// All blocks of all files.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) variables: BTreeMap<String, Variable>,
    pub(super) functions: BTreeMap<String, Function>,
    pub(super) attributes: Attributes,
    pub(super) blocks: Vec<Block>,
}

impl Body {
    /// Adds a file in HCL.
    pub(super) fn add_hcl(&mut self, file: &str, text: &str) -> Result<(), String> {
        let body = hcl::parse(text).map_err(|error| format!("{file}: {error}"))?;
        for structure in body {
            let block = match structure {
                Structure::Attribute(attribute) => {
                    let (name, expr) = named(attribute);
                    self.attributes.insert(name, expr);
                    continue;
                }
                Structure::Block(block) => block,
            };
            let kind = block.identifier.to_string();
            let label = match block.labels.as_slice() {
                [BlockLabel::Identifier(name)] => name.to_string(),
                [BlockLabel::String(name)] => name.clone(),
                _ => return Err(format!("{file}: {kind}: one name in quotes is expected")),
            };
            let place = format!("{file}: {kind} {label}");
            let (mut attributes, mut validations) = (Attributes::new(), Vec::new());
            for inner in block.body {
                match inner {
                    Structure::Attribute(attribute) => {
                        let (name, expr) = named(attribute);
                        attributes.insert(name, expr);
                    }
                    Structure::Block(inner) if inner.identifier() == "validation" => {
                        validations.push(inner.body.attributes().cloned().map(named).collect());
                    }
                    Structure::Block(inner) => {
                        let name = inner.identifier();
                        return Err(format!(
                            "{place}: there is no block {name}: a map is {name} = {{…}}"
                        ));
                    }
                }
            }
            self.add(file, &kind, label, attributes, validations)?;
        }
        Ok(())
    }

    /// Adds a file in the JSON form.
    pub(super) fn add_json(&mut self, file: &str, text: &str) -> Result<(), String> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| format!("{file}: {error}"))?;
        let Value::Object(all) = value else { return Err(format!("{file}: no object")) };
        for (kind, value) in all {
            if !matches!(kind.as_str(), "variable" | "function" | "group" | "target") {
                self.attributes.insert(kind, Expr::Json(value));
                continue;
            }
            let blocks = many(value).ok_or_else(|| format!("{file}: {kind} is no object"))?;
            for (label, block) in blocks.into_iter().flatten() {
                let wrong = || format!("{file}: {kind} {label} is no object");
                for mut block in many(block).ok_or_else(wrong)? {
                    let validations = block.remove("validation").map_or(Some(Vec::new()), many);
                    let validations = validations.ok_or_else(wrong)?;
                    let validations = validations.into_iter().map(attributes).collect();
                    self.add(file, &kind, label.clone(), attributes(block), validations)?;
                }
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        file: &str,
        kind: &str,
        label: String,
        mut attributes: Attributes,
        validations: Vec<Attributes>,
    ) -> Result<(), String> {
        let place = format!("{file}: {kind} {label}");
        if !validations.is_empty() && kind != "variable" {
            return Err(format!("{place}: validation is of variables"));
        }
        let kind = match kind {
            "target" => Kind::Target,
            "group" => Kind::Group,
            "variable" => {
                let default = attributes.remove("default");
                let kind = attributes.remove("type");
                attributes.remove("description");
                attributes.remove("sensitive");
                self.variables.insert(label, Variable { default, kind, validations });
                return nothing_left(&place, &attributes);
            }
            "function" => {
                let words = |name: &str, expr: Expr| {
                    expr.words().ok_or_else(|| format!("{place}: {name} has names in it"))
                };
                let parameters = match attributes.remove("params") {
                    Some(expr) => words("params", expr)?,
                    None => Vec::new(),
                };
                let rest = match attributes.remove("variadic_params") {
                    Some(expr) => words("variadic_params", expr)?.into_iter().next(),
                    None => None,
                };
                let result = attributes.remove("result");
                let result = result.ok_or_else(|| format!("{place}: result is missing"))?;
                self.functions.insert(label, Function { parameters, rest, result });
                return nothing_left(&place, &attributes);
            }
            _ => return Err(format!("{file}: there is no block {kind}")),
        };
        self.blocks.push(Block { kind, label, file: file.to_owned(), attributes });
        Ok(())
    }
}

fn nothing_left(place: &str, attributes: &Attributes) -> Result<(), String> {
    match attributes.keys().next() {
        Some(name) => Err(format!("{place}: {name} is not supported")),
        None => Ok(()),
    }
}

fn named(attribute: hcl::Attribute) -> (String, Expr) {
    (attribute.key.to_string(), Expr::Hcl(attribute.expr))
}

fn attributes(block: Map<String, Value>) -> Attributes {
    block.into_iter().map(|(name, value)| (name, Expr::Json(value))).collect()
}

/// One object, or a list of them.
fn many(value: Value) -> Option<Vec<Map<String, Value>>> {
    let object = |value| match value {
        Value::Object(object) => Some(object),
        _ => None,
    };
    match value {
        Value::Array(list) => list.into_iter().map(object).collect(),
        value => Some(vec![object(value)?]),
    }
}
