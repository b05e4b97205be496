//! What expressions mean: HCL's rules for values, with a bound on the work.
//!
//! Values are JSON: lists, and maps in the order of their keys.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hcl::Expression;
use hcl::expr::{
    BinaryOperator, ForExpr, FuncCall, ObjectKey, Operation, Traversal, TraversalOperator,
    UnaryOperator,
};
use hcl::template::{Directive, Element, Template};
use serde_json::{Map, Value};

use super::body::{Attributes, Body, Expr, Kind, Variable};
use super::functions::{self, Arguments, boolean, list, number, same, text, value_of};

/// How deep expressions, functions and variables may lie in each other.
const MAX_DEPTH: usize = 200;
/// Parts of expressions that are evaluated, and bytes of text that are put together, at most.
const MAX_WORK: usize = 2_000_000;

/// Names that mean something in a place: parameters, items of a loop, axes of a matrix.
#[derive(Default)]
pub(super) struct Scope<'a> {
    own: BTreeMap<String, Value>,
    outer: Option<&'a Scope<'a>>,
}

impl<'a> Scope<'a> {
    pub(super) fn of(own: BTreeMap<String, Value>) -> Self {
        Self { own, outer: None }
    }

    fn within(outer: &'a Scope<'a>, own: BTreeMap<String, Value>) -> Self {
        Self { own, outer: Some(outer) }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.own.get(name).or_else(|| self.outer?.get(name))
    }
}

/// Where variables get other values than those of the files.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Evaluates the expressions of a body.
pub(super) struct Evaluator<'a> {
    body: &'a Body,
    lookup: Lookup<'a>,
    known: RefCell<BTreeMap<String, Value>>,
    /// What is being evaluated.
    open: RefCell<BTreeSet<String>>,
    depth: Cell<usize>,
    work: Cell<usize>,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(body: &'a Body, lookup: Lookup<'a>) -> Self {
        let platform = common::Platform::host().to_string();
        let known = [("BAKE_CMD_CONTEXT", "cwd://"), ("BAKE_LOCAL_PLATFORM", &platform)]
            .map(|(name, value)| (name.to_owned(), Value::from(value)));
        Self {
            body,
            lookup,
            known: RefCell::new(known.into()),
            open: RefCell::default(),
            depth: Cell::new(0),
            work: Cell::new(0),
        }
    }

    /// The value of an expression.
    pub(super) fn value(&self, expr: &Expr, scope: &Scope<'_>) -> Result<Value, String> {
        match expr {
            Expr::Hcl(expression) => self.expression(expression, scope),
            Expr::Json(value) => self.json(value, scope),
        }
    }

    /// Evaluates every variable, so that what is wrong with one is told whether it is used or not.
    pub(super) fn check(&self) -> Result<(), String> {
        self.body
            .variables
            .keys()
            .chain(self.body.attributes.keys())
            .try_for_each(|name| self.global(name).map(|_| ()))
    }

    fn json(&self, value: &Value, scope: &Scope<'_>) -> Result<Value, String> {
        self.charge(1)?;
        Ok(match value {
            Value::String(text) if text.contains("${") || text.contains("%{") => {
                let template: Template =
                    text.parse().map_err(|error: hcl::Error| error.to_string())?;
                self.template(&template, scope)?
            }
            Value::Array(list) => {
                let items = list.iter().map(|item| self.json(item, scope));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            Value::Object(object) => {
                let fields = object.iter();
                let fields = fields.map(|(key, item)| Ok((key.clone(), self.json(item, scope)?)));
                Value::Object(fields.collect::<Result<_, String>>()?)
            }
            value => value.clone(),
        })
    }

    fn expression(&self, expression: &Expression, scope: &Scope<'_>) -> Result<Value, String> {
        self.charge(1)?;
        self.deeper(|| match expression {
            Expression::Null => Ok(Value::Null),
            Expression::Bool(value) => Ok(Value::Bool(*value)),
            Expression::Number(value) => Ok(value_of(value.as_f64().unwrap_or_default())),
            Expression::String(text) => Ok(Value::String(text.clone())),
            Expression::Array(items) => {
                let items = items.iter().map(|item| self.expression(item, scope));
                Ok(Value::Array(items.collect::<Result<_, _>>()?))
            }
            Expression::Object(fields) => {
                let mut object = Map::new();
                for (key, item) in fields {
                    let key = match key {
                        ObjectKey::Expression(key) => text(&self.expression(key, scope)?)?,
                        key => key.to_string(),
                    };
                    object.insert(key, self.expression(item, scope)?);
                }
                Ok(Value::Object(object))
            }
            Expression::TemplateExpr(template) => {
                let template = Template::from_expr(template).map_err(|error| error.to_string())?;
                self.template(&template, scope)
            }
            Expression::Variable(name) => self.name(name.as_str(), scope),
            Expression::Traversal(traversal) => self.traversal(traversal, scope),
            Expression::FuncCall(call) => self.call(call, scope),
            Expression::Parenthesis(inner) => self.expression(inner, scope),
            Expression::Conditional(condition) => {
                let is_met = boolean(&self.expression(&condition.cond_expr, scope)?)?;
                let branch = if is_met { &condition.true_expr } else { &condition.false_expr };
                self.expression(branch, scope)
            }
            Expression::Operation(operation) => self.operation(operation, scope),
            Expression::ForExpr(each) => self.each(each, scope),
            other => Err(format!("{other} is not supported")),
        })
    }

    fn deeper<T>(&self, act: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let depth = self.depth.get() + 1;
        if depth > MAX_DEPTH {
            return Err("the expressions lie too deep in each other".to_owned());
        }
        self.depth.set(depth);
        let result = act();
        self.depth.set(depth - 1);
        result
    }

    fn charge(&self, cost: usize) -> Result<(), String> {
        let work = self.work.get().saturating_add(cost);
        self.work.set(work);
        if work > MAX_WORK { Err("the expressions mean too much work".to_owned()) } else { Ok(()) }
    }

    fn name(&self, name: &str, scope: &Scope<'_>) -> Result<Value, String> {
        let value = match scope.get(name) {
            Some(value) => value.clone(),
            None => self.global(name)?,
        };
        self.charge(functions::size(&value))?;
        Ok(value)
    }

    /// A variable, or an attribute outside of blocks.
    fn global(&self, name: &str) -> Result<Value, String> {
        if let Some(value) = self.known.borrow().get(name) {
            return Ok(value.clone());
        }
        let variable = self.body.variables.get(name);
        let own = self.body.attributes.get(name);
        if own.is_none() && variable.is_none() {
            return Err(format!("there is no variable {name}"));
        }
        let value = self.once(name, || {
            let (scope, default) = (Scope::default(), Variable::default());
            let variable = variable.unwrap_or(&default);
            let value = match own.or(variable.default.as_ref()) {
                Some(expr) => Some(self.value(expr, &scope)?),
                None => None,
            };
            let given = self.body.variables.contains_key(name).then(|| (self.lookup)(name));
            match (given.flatten(), value) {
                (Some(given), value) => converted(name, &given, variable, value.as_ref()),
                (None, value) => Ok(value.unwrap_or_else(|| Value::String(String::new()))),
            }
        })?;
        self.known.borrow_mut().insert(name.to_owned(), value.clone());
        if let Some(variable) = self.body.variables.get(name) {
            self.validate(name, &variable.validations)?;
        }
        Ok(value)
    }

    fn once<T>(&self, name: &str, act: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        if !self.open.borrow_mut().insert(name.to_owned()) {
            return Err(format!("{name} is made of itself"));
        }
        let result = self.deeper(act);
        self.open.borrow_mut().remove(name);
        result.map_err(|error| format!("{name}: {error}"))
    }

    fn validate(&self, name: &str, validations: &[Attributes]) -> Result<(), String> {
        let scope = Scope::default();
        for validation in validations {
            let Some(condition) = validation.get("condition") else {
                return Err(format!("{name}: a validation has a condition"));
            };
            if boolean(&self.value(condition, &scope)?)? {
                continue;
            }
            let message = match validation.get("error_message") {
                Some(message) => text(&self.value(message, &scope)?)?,
                None => "the value is not valid".to_owned(),
            };
            return Err(format!("{name}: {message}"));
        }
        Ok(())
    }

    fn traversal(&self, traversal: &Traversal, scope: &Scope<'_>) -> Result<Value, String> {
        let mut operators: VecDeque<&TraversalOperator> = traversal.operators.iter().collect();
        if let Expression::Variable(root) = &traversal.expr
            && let Some(kind) = block_kind(root.as_str())
            && scope.get(root.as_str()).is_none()
        {
            let mut step = || match operators.pop_front() {
                Some(TraversalOperator::GetAttr(name)) => Ok(name.to_string()),
                Some(TraversalOperator::Index(index)) => text(&self.expression(index, scope)?),
                _ => Err(format!("{}.NAME.ATTRIBUTE is expected", root.as_str())),
            };
            let (label, attribute) = (step()?, step()?);
            let value = self.of_block(kind, &label, &attribute)?;
            return self.steps(value, operators, scope);
        }
        let value = self.expression(&traversal.expr, scope)?;
        self.steps(value, operators, scope)
    }

    /// An attribute of another block, as it stands there.
    fn of_block(&self, kind: Kind, label: &str, attribute: &str) -> Result<Value, String> {
        let blocks = self.body.blocks.iter().rev();
        let mut fitting = blocks.filter(|block| block.kind == kind && block.label == label);
        let found = fitting.find_map(|block| block.attributes.get(attribute));
        let expr = found.ok_or_else(|| format!("{label} has no {attribute}"))?;
        self.once(&format!("{label}.{attribute}"), || self.value(expr, &Scope::default()))
    }

    fn steps(
        &self,
        mut value: Value,
        mut operators: VecDeque<&TraversalOperator>,
        scope: &Scope<'_>,
    ) -> Result<Value, String> {
        while let Some(operator) = operators.pop_front() {
            self.charge(1)?;
            value = match operator {
                TraversalOperator::GetAttr(name) => field(value, name.as_str())?,
                TraversalOperator::LegacyIndex(index) => {
                    item(value, number(&Value::from(*index))?)?
                }
                TraversalOperator::Index(index) => match self.expression(index, scope)? {
                    Value::String(name) if value.is_object() => field(value, &name)?,
                    index => item(value, number(&index)?)?,
                },
                TraversalOperator::AttrSplat => {
                    let is_name =
                        |next: &&TraversalOperator| matches!(next, TraversalOperator::GetAttr(_));
                    let names = operators.iter().take_while(|next| is_name(next)).count();
                    let rest = operators.split_off(names);
                    let names = std::mem::replace(&mut operators, rest);
                    self.splat(value, &names, scope)?
                }
                TraversalOperator::FullSplat => {
                    let rest = std::mem::take(&mut operators);
                    self.splat(value, &rest, scope)?
                }
            };
        }
        Ok(value)
    }

    fn splat(
        &self,
        value: Value,
        operators: &VecDeque<&TraversalOperator>,
        scope: &Scope<'_>,
    ) -> Result<Value, String> {
        let items = match value {
            Value::Array(items) => items,
            Value::Null => Vec::new(),
            value => vec![value],
        };
        let each = items.into_iter().map(|item| self.steps(item, operators.clone(), scope));
        Ok(Value::Array(each.collect::<Result<_, _>>()?))
    }

    fn call(&self, call: &FuncCall, scope: &Scope<'_>) -> Result<Value, String> {
        let name = call.name.to_string();
        match name.as_str() {
            "try" => {
                let mut tries = call.args.iter().map(|one| self.expression(one, scope));
                let first = tries.find(Result::is_ok);
                return first.unwrap_or_else(|| Err("try: nothing of it works".to_owned()));
            }
            "can" => {
                let all = call.args.iter().all(|one| self.expression(one, scope).is_ok());
                return Ok(Value::Bool(all));
            }
            _ => {}
        }
        let mut values = Vec::new();
        for (position, argument) in call.args.iter().enumerate() {
            let value = self.expression(argument, scope)?;
            if call.expand_final && position + 1 == call.args.len() {
                values.extend(list(&value)?.iter().cloned());
            } else {
                values.push(value);
            }
        }
        let Some(function) = self.body.functions.get(&name) else {
            let value = functions::call(&name, &Arguments(&values))?;
            self.charge(functions::size(&value))?;
            return Ok(value);
        };
        let count = function.parameters.len();
        if values.len() < count || (values.len() > count && function.rest.is_none()) {
            return Err(format!("{name}: {count} arguments are expected"));
        }
        let rest = values.split_off(count);
        let mut own: BTreeMap<String, Value> =
            function.parameters.iter().cloned().zip(values).collect();
        own.extend(function.rest.iter().map(|name| (name.clone(), Value::Array(rest.clone()))));
        let inner = Scope::of(own);
        self.value(&function.result, &inner).map_err(|error| format!("{name}: {error}"))
    }

    fn operation(&self, operation: &Operation, scope: &Scope<'_>) -> Result<Value, String> {
        let binary = match operation {
            Operation::Unary(unary) => {
                let value = self.expression(&unary.expr, scope)?;
                return Ok(match unary.operator {
                    UnaryOperator::Neg => value_of(-number(&value)?),
                    UnaryOperator::Not => Value::Bool(!boolean(&value)?),
                });
            }
            Operation::Binary(binary) => binary,
        };
        let left = self.expression(&binary.lhs_expr, scope)?;
        let right = self.expression(&binary.rhs_expr, scope)?;
        let numbers = || Ok::<_, String>((number(&left)?, number(&right)?));
        Ok(match binary.operator {
            BinaryOperator::Eq => Value::Bool(same(&left, &right)),
            BinaryOperator::NotEq => Value::Bool(!same(&left, &right)),
            BinaryOperator::And => Value::Bool(boolean(&left)? && boolean(&right)?),
            BinaryOperator::Or => Value::Bool(boolean(&left)? || boolean(&right)?),
            BinaryOperator::Less => numbers().map(|(left, right)| left < right)?.into(),
            BinaryOperator::LessEq => numbers().map(|(left, right)| left <= right)?.into(),
            BinaryOperator::Greater => numbers().map(|(left, right)| left > right)?.into(),
            BinaryOperator::GreaterEq => numbers().map(|(left, right)| left >= right)?.into(),
            BinaryOperator::Plus => numbers().map(|(left, right)| value_of(left + right))?,
            BinaryOperator::Minus => numbers().map(|(left, right)| value_of(left - right))?,
            BinaryOperator::Mul => numbers().map(|(left, right)| value_of(left * right))?,
            BinaryOperator::Div => {
                let (left, right) = numbers()?;
                value_of(functions::quotient(left, right)?)
            }
            BinaryOperator::Mod => {
                let (left, right) = numbers()?;
                functions::quotient(left, right)?;
                value_of(left % right)
            }
        })
    }

    fn each(&self, each: &ForExpr, scope: &Scope<'_>) -> Result<Value, String> {
        let collection = self.expression(&each.collection_expr, scope)?;
        let (mut items, mut fields) = (Vec::new(), Map::new());
        let names = (each.key_var.as_ref().map(hcl::Identifier::as_str), each.value_var.as_str());
        for inner in inner_scopes(names, collection, scope)? {
            if let Some(condition) = &each.cond_expr
                && !boolean(&self.expression(condition, &inner)?)?
            {
                continue;
            }
            let value = self.expression(&each.value_expr, &inner)?;
            let Some(key) = &each.key_expr else {
                items.push(value);
                continue;
            };
            let key = text(&self.expression(key, &inner)?)?;
            if each.grouping {
                let group = fields.entry(key).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(group) = group {
                    group.push(value);
                }
            } else if fields.contains_key(&key) {
                return Err(format!("two items have the key {key}"));
            } else {
                fields.insert(key, value);
            }
        }
        let is_map = each.key_expr.is_some();
        Ok(if is_map { Value::Object(fields) } else { Value::Array(items) })
    }

    fn template(&self, template: &Template, scope: &Scope<'_>) -> Result<Value, String> {
        if let [Element::Interpolation(alone)] = template.elements() {
            return self.expression(&alone.expr, scope);
        }
        let mut made = String::new();
        self.write(template, (false, false), &mut made, scope)?;
        Ok(Value::String(made))
    }

    /// Writes a template; `strips` says whether its neighbours take blanks away at its ends.
    fn write(
        &self,
        template: &Template,
        strips: (bool, bool),
        made: &mut String,
        scope: &Scope<'_>,
    ) -> Result<(), String> {
        let elements = template.elements();
        for (position, element) in elements.iter().enumerate() {
            match element {
                Element::Literal(literal) => {
                    let before = position.checked_sub(1).map(|before| ends(&elements[before]).1);
                    let after = elements.get(position + 1).map(|after| ends(after).0);
                    let mut literal = literal.as_str();
                    if before.unwrap_or(strips.0) {
                        literal = literal.trim_start();
                    }
                    if after.unwrap_or(strips.1) {
                        literal = literal.trim_end();
                    }
                    self.charge(literal.len())?;
                    made.push_str(literal);
                }
                Element::Interpolation(inner) => {
                    let piece = text(&self.expression(&inner.expr, scope)?)?;
                    self.charge(piece.len())?;
                    made.push_str(&piece);
                }
                Element::Directive(directive) => {
                    self.deeper(|| self.direct(directive, made, scope))?;
                }
            }
        }
        Ok(())
    }

    fn direct(
        &self,
        directive: &Directive,
        made: &mut String,
        scope: &Scope<'_>,
    ) -> Result<(), String> {
        match directive {
            Directive::If(directive) => {
                let (first, second) = (&directive.true_template, &directive.false_template);
                let (start, between, end) =
                    (directive.if_strip, directive.else_strip, directive.endif_strip);
                if boolean(&self.expression(&directive.cond_expr, scope)?)? {
                    let after = if second.is_some() { between } else { end };
                    return self.write(
                        first,
                        (start.strip_end(), after.strip_start()),
                        made,
                        scope,
                    );
                }
                match second {
                    Some(second) => {
                        let strips = (between.strip_end(), end.strip_start());
                        self.write(second, strips, made, scope)
                    }
                    None => Ok(()),
                }
            }
            Directive::For(directive) => {
                let collection = self.expression(&directive.collection_expr, scope)?;
                let strips =
                    (directive.for_strip.strip_end(), directive.endfor_strip.strip_start());
                let key = directive.key_var.as_ref().map(hcl::Identifier::as_str);
                for inner in inner_scopes((key, directive.value_var.as_str()), collection, scope)? {
                    self.write(&directive.template, strips, made, &inner)?;
                }
                Ok(())
            }
        }
    }
}

/// Whether an element takes away the blanks before it, and after it.
fn ends(element: &Element) -> (bool, bool) {
    match element {
        Element::Literal(_) => (false, false),
        Element::Interpolation(inner) => (inner.strip.strip_start(), inner.strip.strip_end()),
        Element::Directive(directive) => match &**directive {
            Directive::If(it) => (it.if_strip.strip_start(), it.endif_strip.strip_end()),
            Directive::For(it) => (it.for_strip.strip_start(), it.endfor_strip.strip_end()),
        },
    }
}

/// One scope for each item of a collection.
fn inner_scopes<'a>(
    (key, item): (Option<&str>, &str),
    collection: Value,
    outer: &'a Scope<'a>,
) -> Result<Vec<Scope<'a>>, String> {
    let pairs: Vec<(Value, Value)> = match collection {
        Value::Array(items) => {
            items.into_iter().enumerate().map(|(at, item)| (Value::from(at), item)).collect()
        }
        Value::Object(fields) => {
            fields.into_iter().map(|(key, item)| (Value::String(key), item)).collect()
        }
        _ => return Err("for takes lists and maps".to_owned()),
    };
    let scope = |(at, value)| {
        let names = key.map(|key| (key.to_owned(), at));
        let names = names.into_iter().chain([(item.to_owned(), value)]);
        Scope::within(outer, names.collect())
    };
    Ok(pairs.into_iter().map(scope).collect())
}

fn block_kind(name: &str) -> Option<Kind> {
    match name {
        "target" => Some(Kind::Target),
        "group" => Some(Kind::Group),
        _ => None,
    }
}

fn field(value: Value, name: &str) -> Result<Value, String> {
    match value {
        Value::Object(mut fields) => {
            fields.remove(name).ok_or_else(|| format!("there is no {name} in it"))
        }
        _ => Err(format!("there is no {name} in what is no map")),
    }
}

fn item(value: Value, index: f64) -> Result<Value, String> {
    let missing = || format!("there is no item {index}");
    let Value::Array(mut items) = value else { return Err(missing()) };
    let position = functions::position(index).filter(|position| *position < items.len());
    Ok(items.swap_remove(position.ok_or_else(missing)?))
}

/// What a variable is when `given` comes from outside: of the type that it is declared with, else of
/// that of its default.
fn converted(
    name: &str,
    given: &str,
    variable: &Variable,
    default: Option<&Value>,
) -> Result<Value, String> {
    let kind = match &variable.kind {
        None => None,
        Some(Expr::Json(Value::String(kind))) => Some(kind.clone()),
        Some(Expr::Json(_)) => return Err(format!("{name}: its type is no text")),
        Some(Expr::Hcl(Expression::String(kind))) => Some(kind.clone()),
        Some(Expr::Hcl(expression)) => Some(expression.to_string()),
    };
    let kind = match (kind.as_deref(), default) {
        (None | Some("any"), Some(Value::Bool(_))) => "bool".to_owned(),
        (None | Some("any"), Some(Value::Number(_))) => "number".to_owned(),
        (None | Some("any"), None | Some(Value::Null | Value::String(_))) => "string".to_owned(),
        (None | Some("any"), Some(_)) => {
            return Err(format!(
                "{name} is a list or a map: from outside it comes with a type only"
            ));
        }
        (Some(kind), _) => kind.to_owned(),
    };
    let one = |kind: &str, given: &str| {
        let given = Value::String(given.to_owned());
        match kind {
            "string" => Ok(given),
            "number" => Ok(value_of(number(&given)?)),
            "bool" => Ok(Value::Bool(boolean(&given)?)),
            _ => Err(format!("values of the type {kind} do not come from outside")),
        }
    };
    let inner = ["list(", "set("].iter().find_map(|start| kind.strip_prefix(start));
    match inner.and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => {
            let items = given.split(',').filter(|item| !item.is_empty());
            let items = items.map(|item| one(inner, item.trim()));
            Ok(Value::Array(items.collect::<Result<_, _>>()?))
        }
        None => one(&kind, given),
    }
}
