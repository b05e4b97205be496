//! Calling a function by its name, and the values that all of them work with.

use serde_json::{Map, Value};

use super::{collection, encode, numeric, textual};

/// Functions of bake that are not built.
const REFUSED: [&str; 13] = [
    "bcrypt",
    "bytesslice",
    "cidrhost",
    "cidrnetmask",
    "cidrsubnet",
    "cidrsubnets",
    "convert",
    "csvdecode",
    "md5",
    "rsadecrypt",
    "uuidv5",
    "semvercmp",
    "sha1",
];
/// Longest text and list that a function makes.
pub(super) const MAX_SIZE: usize = 4 << 20;

/// What a function is called with.
pub(in crate::bake) struct Arguments<'a>(pub(in crate::bake) &'a [Value]);

impl Arguments<'_> {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn at(&self, position: usize) -> Result<&Value, String> {
        self.0.get(position).ok_or_else(|| format!("{} arguments are too few", self.0.len()))
    }

    pub(super) fn text(&self, position: usize) -> Result<String, String> {
        text(self.at(position)?)
    }

    pub(super) fn number(&self, position: usize) -> Result<f64, String> {
        number(self.at(position)?)
    }

    /// A number without fraction.
    pub(super) fn integer(&self, position: usize) -> Result<i64, String> {
        integer(self.number(position)?)
    }

    pub(super) fn list(&self, position: usize) -> Result<&[Value], String> {
        list(self.at(position)?)
    }

    pub(super) fn map(&self, position: usize) -> Result<&Map<String, Value>, String> {
        self.at(position)?.as_object().ok_or_else(|| "a map is expected".to_owned())
    }

    pub(super) fn texts(&self, position: usize) -> Result<Vec<String>, String> {
        self.list(position)?.iter().map(text).collect()
    }
}

/// Calls a function.
pub(in crate::bake) fn call(name: &str, arguments: &Arguments<'_>) -> Result<Value, String> {
    if REFUSED.contains(&name) {
        return Err(format!("the function {name} is not supported"));
    }
    let made = textual::call(name, arguments)
        .or_else(|| numeric::call(name, arguments))
        .or_else(|| collection::call(name, arguments))
        .or_else(|| encode::call(name, arguments))
        .unwrap_or_else(|| Err("there is no such function".to_owned()));
    let made = made.map_err(|error| format!("{name}: {error}"))?;
    if size(&made) > MAX_SIZE {
        return Err(format!("{name}: the result is too large"));
    }
    Ok(made)
}

/// How large a value is.
pub(in crate::bake) fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => 1 + text.len(),
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(fields) => {
            1 + fields.iter().map(|(key, item)| key.len() + size(item)).sum::<usize>()
        }
        _ => 1,
    }
}

/// A value as a text.
pub(in crate::bake) fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Null => Err("a text is expected, not null".to_owned()),
        Value::Array(_) | Value::Object(_) => {
            Err("a text is expected, not a list or a map".to_owned())
        }
    }
}

/// A value as a number.
pub(in crate::bake) fn number(value: &Value) -> Result<f64, String> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let number = number.filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| format!("{value} is no number"))
}

/// A value as yes or no.
pub(in crate::bake) fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::String(text) if matches!(text.as_str(), "true" | "1") => Ok(true),
        Value::String(text) if matches!(text.as_str(), "false" | "0") => Ok(false),
        _ => Err(format!("{value} is neither true nor false")),
    }
}

/// The items of a list.
pub(in crate::bake) fn list(value: &Value) -> Result<&[Value], String> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| "a list is expected".to_owned())
}

/// Whether two values are the same.
pub(in crate::bake) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(a, b)| same(a, b))
        }
        (Value::Object(left), Value::Object(right)) => {
            let mut pairs = left.iter().zip(right);
            left.len() == right.len() && pairs.all(|((a, x), (b, y))| a == b && same(x, y))
        }
        (left, right) => left == right,
    }
}

/// A number as a value: without fraction where it has none.
pub(in crate::bake) fn value_of(number: f64) -> Value {
    match integer(number) {
        Ok(number) => Value::from(number),
        Err(_) => Value::from(number),
    }
}

/// The number, if it has no fraction and is exact.
pub(super) fn integer(number: f64) -> Result<i64, String> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() != 0.0 || number.abs() > EXACT {
        return Err(format!("{number} is no whole number"));
    }
    format!("{number:.0}").parse().map_err(|_| format!("{number} is no whole number"))
}

/// A place in a list.
pub(in crate::bake) fn position(number: f64) -> Option<usize> {
    usize::try_from(integer(number).ok()?).ok()
}

/// One number by another.
pub(in crate::bake) fn quotient(left: f64, right: f64) -> Result<f64, String> {
    if right == 0.0 { Err("division by zero".to_owned()) } else { Ok(left / right) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(cases: impl IntoIterator<Item = (&'static str, Value, Value)>) {
        for (name, arguments, expected) in cases {
            let arguments = arguments.as_array().unwrap();
            let made = call(name, &Arguments(arguments));
            assert!(made.as_ref().is_ok_and(|made| same(made, &expected)), "{name}: {made:?}");
        }
    }

    #[test]
    fn functions_of_texts_give_what_their_references_say() {
        check([
            ("upper", json!(["aé"]), json!("AÉ")),
            ("title", json!(["hello wide world"]), json!("Hello Wide World")),
            ("trim", json!(["?!hi?!", "!?"]), json!("hi")),
            ("trimprefix", json!(["v1.0", "v"]), json!("1.0")),
            ("trimsuffix", json!(["v1.0", ".0"]), json!("v1")),
            ("chomp", json!(["a\r\n\n"]), json!("a")),
            ("indent", json!([2, "a\nb"]), json!("a\n  b")),
            ("replace", json!(["1.2.3", ".", "-"]), json!("1-2-3")),
            ("replace", json!(["a1b22", "/[0-9]+/", "-"]), json!("a1b22")),
            ("regex_replace", json!(["a1b22", "([a-z])[0-9]+", "${1}-"]), json!("a-b-")),
            ("regex", json!(["^v([0-9]+)[.]([0-9]+)$", "v1.22"]), json!(["1", "22"])),
            ("regex", json!(["[0-9]+", "v1.22"]), json!("1")),
            ("regexall", json!(["[0-9]+", "v1.22"]), json!(["1", "22"])),
            ("split", json!([",", "a,b"]), json!(["a", "b"])),
            ("join", json!([",", ["a", 1], ["c"]]), json!("a,1,c")),
            ("substr", json!(["hello", 1, 3]), json!("ell")),
            ("substr", json!(["hello", -3, -1]), json!("llo")),
            ("strlen", json!(["né"]), json!(2)),
            ("byteslen", json!(["né"]), json!(3)),
            ("reverse", json!(["abc"]), json!("cba")),
            ("format", json!(["%s-%03d %v %q %%", "a", 7, true, "x"]), json!("a-007 true \"x\" %")),
            (
                "format",
                json!(["%.2f|%5s|%-5s|%x", 1.5, "a", "b", 255]),
                json!("1.50|    a|b    |ff"),
            ),
            ("formatlist", json!(["%s:%s", ["a", "b"], "x"]), json!(["a:x", "b:x"])),
            ("sanitize", json!(["a/b.c-d_1"]), json!("a_b_c-d_1")),
            ("basename", json!(["/a/b.c"]), json!("b.c")),
            ("dirname", json!(["/a/b.c"]), json!("/a")),
            ("dirname", json!(["b"]), json!(".")),
        ]);
    }

    #[test]
    fn functions_of_numbers_and_lists_give_what_their_references_say() {
        check([
            ("add", json!([123, 1]), json!(124)),
            ("divide", json!([3, 2]), json!(1.5)),
            ("modulo", json!([7, 4]), json!(3)),
            ("int", json!([-1.9]), json!(-1)),
            ("ceil", json!([1.1]), json!(2)),
            ("log", json!([8, 2]), json!(3)),
            ("pow", json!([2, 10]), json!(1024)),
            ("signum", json!([-5]), json!(-1)),
            ("max", json!([1, 5, 3]), json!(5)),
            ("parseint", json!(["ff", 16]), json!(255)),
            ("lessthan", json!([1, 2]), json!(true)),
            ("and", json!([true, false]), json!(false)),
            ("not", json!([false]), json!(true)),
            ("equal", json!([1, 1.0]), json!(true)),
            ("length", json!([{"a": 1}]), json!(1)),
            ("element", json!([["a", "b", "c"], 4]), json!("b")),
            ("slice", json!([["a", "b", "c"], 1, 3]), json!(["b", "c"])),
            ("index", json!([{"a": 1}, "a"]), json!(1)),
            ("indexof", json!([["a", "b"], "b"]), json!(1)),
            ("hasindex", json!([["a"], 1]), json!(false)),
            ("lookup", json!([{"a": 1}, "b", 2]), json!(2)),
            ("merge", json!([{"a": 1, "b": 1}, {"b": 2}]), json!({"a": 1, "b": 2})),
            ("keys", json!([{"b": 1, "a": 2}]), json!(["a", "b"])),
            ("values", json!([{"b": 1, "a": 2}]), json!([2, 1])),
            ("zipmap", json!([["a", "b"], [1, 2]]), json!({"a": 1, "b": 2})),
            ("concat", json!([[1], [2, 3]]), json!([1, 2, 3])),
            ("flatten", json!([[1, [2, [3]]]]), json!([1, 2, 3])),
            ("distinct", json!([["a", "b", "a"]]), json!(["a", "b"])),
            ("compact", json!([["a", "", null, "b"]]), json!(["a", "b"])),
            ("chunklist", json!([[1, 2, 3], 2]), json!([[1, 2], [3]])),
            ("contains", json!([["a"], "a"]), json!(true)),
            ("coalesce", json!([null, "", "b"]), json!("")),
            ("coalescelist", json!([[], [1]]), json!([1])),
            ("reverselist", json!([[1, 2]]), json!([2, 1])),
            ("sort", json!([["b", "a"]]), json!(["a", "b"])),
            ("range", json!([3]), json!([0, 1, 2])),
            ("range", json!([4, 0, -2]), json!([4, 2])),
            ("setunion", json!([["a", "b"], ["b", "c"]]), json!(["a", "b", "c"])),
            ("setintersection", json!([["a", "b"], ["b"]]), json!(["b"])),
            ("setsubtract", json!([["a", "b"], ["b"]]), json!(["a"])),
            ("setsymmetricdifference", json!([["a", "b"], ["b", "c"]]), json!(["a", "c"])),
            ("setproduct", json!([["a"], [1, 2]]), json!([["a", 1], ["a", 2]])),
            ("base64encode", json!(["hi"]), json!("aGk=")),
            ("base64decode", json!(["aGk="]), json!("hi")),
            ("urlencode", json!(["a b/ü"]), json!("a+b%2F%C3%BC")),
            ("jsonencode", json!([{"a": [1]}]), json!("{\"a\":[1]}")),
            ("jsondecode", json!(["{\"a\":[1]}"]), json!({"a": [1]})),
            ("timeadd", json!(["2020-01-01T00:00:00Z", "1h30m"]), json!("2020-01-01T01:30:00Z")),
            (
                "formatdate",
                json!(["YYYY-MM-DD'T'hh", "2020-02-03T04:05:06Z"]),
                json!("2020-02-03T04"),
            ),
        ]);
        let digest = call("sha256", &Arguments(&[json!("")])).unwrap();
        assert!(digest.as_str().unwrap().starts_with("e3b0c44298fc1c14"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (name, arguments, says) in [
            ("none", json!([]), "there is no such function"),
            ("bcrypt", json!(["x"]), "is not supported"),
            ("divide", json!([1, 0]), "division by zero"),
            ("upper", json!([]), "too few"),
            ("upper", json!([[1]]), "a text is expected"),
            ("add", json!(["a", 1]), "is no number"),
            ("element", json!([[], 1]), "an empty list"),
            ("format", json!(["%s"]), "too few"),
            ("range", json!([100_000_000]), "too"),
            ("regex", json!(["(", "a"]), "regex"),
            ("indent", json!([100_000_000, "a\nb"]), "too"),
            ("jsondecode", json!(["{"]), "EOF"),
        ] {
            let error = call(name, &Arguments(arguments.as_array().unwrap())).unwrap_err();
            assert!(error.contains(says), "{name}: {error}");
        }
    }
}
