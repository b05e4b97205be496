//! Functions of numbers and of what is true.

use serde_json::Value;

use super::{Arguments, boolean, integer, quotient, same, value_of};

pub(super) fn call(name: &str, arguments: &Arguments<'_>) -> Option<Result<Value, String>> {
    let one = |act: fn(f64) -> f64| Some(arguments.number(0).map(|number| value_of(act(number))));
    let two = |act: fn(f64, f64) -> f64| Some(both(arguments).map(|(a, b)| value_of(act(a, b))));
    let test = |act: fn(f64, f64) -> bool| Some(both(arguments).map(|(a, b)| act(a, b).into()));
    let truths = || Ok::<_, String>((boolean(arguments.at(0)?)?, boolean(arguments.at(1)?)?));
    match name {
        "absolute" => one(f64::abs),
        "negate" => one(|number| -number),
        "ceil" => one(f64::ceil),
        "floor" => one(f64::floor),
        "int" => one(f64::trunc),
        "signum" => one(|number| if number == 0.0 { 0.0 } else { number.signum() }),
        "add" => two(|a, b| a + b),
        "subtract" => two(|a, b| a - b),
        "multiply" => two(|a, b| a * b),
        "divide" => Some(both(arguments).and_then(|(a, b)| Ok(value_of(quotient(a, b)?)))),
        "modulo" => Some(both(arguments).and_then(|(a, b)| {
            quotient(a, b)?;
            Ok(value_of(a % b))
        })),
        "pow" => Some(both(arguments).and_then(|(a, b)| finite(a.powf(b)))),
        "log" => Some(both(arguments).and_then(|(a, b)| {
            let made = a.ln() / b.ln();
            let whole = made.round();
            finite(if (made - whole).abs() < 1e-9 { whole } else { made })
        })),
        "max" => Some(all(arguments, f64::max)),
        "min" => Some(all(arguments, f64::min)),
        "parseint" => Some(arguments.text(0).and_then(|text| {
            let base = u32::try_from(arguments.integer(1)?).ok();
            let base = base.filter(|base| (2..=36).contains(base)).ok_or("the base is 2 to 36")?;
            let number = i64::from_str_radix(&text, base);
            Ok(Value::from(number.map_err(|_| format!("{text} is no number of base {base}"))?))
        })),
        "lessthan" => test(|a, b| a < b),
        "lessthanorequalto" => test(|a, b| a <= b),
        "greaterthan" => test(|a, b| a > b),
        "greaterthanorequalto" => test(|a, b| a >= b),
        "and" => Some(truths().map(|(a, b)| (a && b).into())),
        "or" => Some(truths().map(|(a, b)| (a || b).into())),
        "not" => Some(arguments.at(0).and_then(|value| Ok((!boolean(value)?).into()))),
        "equal" => Some(equal(arguments).map(Value::from)),
        "notequal" => Some(equal(arguments).map(|equal| (!equal).into())),
        "range" => Some(range(arguments)),
        _ => None,
    }
}

fn both(arguments: &Arguments<'_>) -> Result<(f64, f64), String> {
    Ok((arguments.number(0)?, arguments.number(1)?))
}

fn equal(arguments: &Arguments<'_>) -> Result<bool, String> {
    Ok(same(arguments.at(0)?, arguments.at(1)?))
}

fn finite(made: f64) -> Result<Value, String> {
    if made.is_finite() { Ok(value_of(made)) } else { Err("the result is no number".to_owned()) }
}

fn all(arguments: &Arguments<'_>, act: fn(f64, f64) -> f64) -> Result<Value, String> {
    let first = arguments.number(0)?;
    let rest = (1..arguments.count()).map(|position| arguments.number(position));
    rest.into_iter().try_fold(first, |a, b| Ok(act(a, b?))).map(value_of)
}

/// From zero or a start until before an end.
fn range(arguments: &Arguments<'_>) -> Result<Value, String> {
    let number = |position| arguments.number(position).and_then(integer);
    let (start, end) = match arguments.count() {
        1 => (0, number(0)?),
        _ => (number(0)?, number(1)?),
    };
    let step = match arguments.count() {
        3 => number(2)?,
        _ if end < start => -1,
        _ => 1,
    };
    let leads_there = step != 0 && (start == end || (step > 0) == (end > start));
    if !leads_there || ((end - start) / step) > 10_000 {
        return Err("the range is too long, or its step does not lead there".to_owned());
    }
    let mut items = Vec::new();
    let mut at = start;
    while (step > 0 && at < end) || (step < 0 && at > end) {
        items.push(Value::from(at));
        at += step;
    }
    Ok(Value::Array(items))
}
