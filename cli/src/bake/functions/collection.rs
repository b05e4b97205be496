//! Functions of lists and maps.

use serde_json::{Map, Value};

use super::{Arguments, MAX_SIZE, number, position, same, text};

pub(super) fn call(name: &str, arguments: &Arguments<'_>) -> Option<Result<Value, String>> {
    let list = |made: Result<Vec<Value>, String>| Some(made.map(Value::Array));
    let items = || arguments.list(0).map(<[Value]>::to_vec);
    match name {
        "length" => Some(arguments.at(0).and_then(|value| match value {
            Value::Array(items) => Ok(items.len().into()),
            Value::Object(fields) => Ok(fields.len().into()),
            _ => Err("a list or a map is expected".to_owned()),
        })),
        "element" => Some(arguments.list(0).and_then(|items| {
            let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
            if count == 0 {
                return Err("an empty list has no element".to_owned());
            }
            let place = arguments.integer(1)?.rem_euclid(count);
            Ok(items[usize::try_from(place).unwrap_or_default()].clone())
        })),
        "slice" => list(arguments.list(0).and_then(|items| {
            let (start, end) = (position(arguments.number(1)?), position(arguments.number(2)?));
            let part = start.zip(end).and_then(|(start, end)| items.get(start..end));
            part.map(<[Value]>::to_vec).ok_or_else(|| "the list is shorter".to_owned())
        })),
        "index" => Some(arguments.at(0).and_then(|value| {
            found(value, arguments.at(1)?)?.ok_or_else(|| "there is no such item".to_owned())
        })),
        "hasindex" => Some(
            arguments.at(0).and_then(|value| Ok(found(value, arguments.at(1)?)?.is_some().into())),
        ),
        "indexof" => Some(arguments.list(0).and_then(|items| {
            let wanted = arguments.at(1)?;
            let found = items.iter().position(|item| same(item, wanted));
            found.map(Value::from).ok_or_else(|| "there is no such item".to_owned())
        })),
        "lookup" => Some(arguments.map(0).and_then(|fields| {
            match (fields.get(&arguments.text(1)?), arguments.0.get(2)) {
                (Some(value), _) | (None, Some(value)) => Ok(value.clone()),
                (None, None) => Err("there is no such key".to_owned()),
            }
        })),
        "keys" => {
            list(arguments.map(0).map(|fields| fields.keys().map(|key| (**key).into()).collect()))
        }
        "values" => list(arguments.map(0).map(|fields| fields.values().cloned().collect())),
        "merge" => Some(merged(arguments)),
        "zipmap" => Some(arguments.texts(0).and_then(|keys| {
            let values = arguments.list(1)?;
            if keys.len() != values.len() {
                return Err("the lists have other lengths".to_owned());
            }
            Ok(Value::Object(keys.into_iter().zip(values.iter().cloned()).collect()))
        })),
        "concat" => list(lists(arguments).map(|lists| lists.concat())),
        "flatten" => list(arguments.list(0).map(|items| {
            let mut flat = Vec::new();
            flatten(items, &mut flat);
            flat
        })),
        "distinct" => list(items().map(distinct)),
        "compact" => list(items().map(|items| {
            let is_there = |item: &Value| !item.is_null() && item.as_str() != Some("");
            items.into_iter().filter(is_there).collect()
        })),
        "coalesce" => {
            let first = arguments.0.iter().find(|value| !value.is_null());
            Some(first.cloned().ok_or_else(|| "all are null".to_owned()))
        }
        "coalescelist" => {
            let is_full = |value: &&Value| value.as_array().is_some_and(|items| !items.is_empty());
            let first = arguments.0.iter().find(is_full);
            Some(first.cloned().ok_or_else(|| "all are empty".to_owned()))
        }
        "reverselist" => list(items().map(|items| items.into_iter().rev().collect())),
        "sort" => list(arguments.texts(0).map(|mut texts| {
            texts.sort();
            texts.into_iter().map(Value::from).collect()
        })),
        _ => set_call(name, arguments),
    }
}

fn set_call(name: &str, arguments: &Arguments<'_>) -> Option<Result<Value, String>> {
    let list = |made: Result<Vec<Value>, String>| Some(made.map(Value::Array));
    match name {
        "chunklist" => list(arguments.list(0).and_then(|items| {
            let size = position(arguments.number(1)?).ok_or("the size is no count")?;
            let chunks = items.chunks(if size == 0 { items.len().max(1) } else { size });
            Ok(chunks.map(|chunk| Value::Array(chunk.to_vec())).collect())
        })),
        "contains" | "sethaselement" => Some(arguments.list(0).and_then(|items| {
            let wanted = arguments.at(1)?;
            Ok(items.iter().any(|item| same(item, wanted)).into())
        })),
        "setunion" => list(lists(arguments).map(|lists| set(lists.concat()))),
        "setintersection" => list(sets(arguments, |a, b| kept(a, b, true))),
        "setsubtract" => list(sets(arguments, |a, b| kept(a, b, false))),
        "setsymmetricdifference" => {
            list(sets(arguments, |a, b| [kept(a, b, false), kept(b, a, false)].concat()))
        }
        "setproduct" => list(product(arguments)),
        _ => None,
    }
}

fn lists<'a>(arguments: &'a Arguments<'_>) -> Result<Vec<&'a [Value]>, String> {
    (0..arguments.count()).map(|position| arguments.list(position)).collect()
}

fn found(value: &Value, key: &Value) -> Result<Option<Value>, String> {
    Ok(match value {
        Value::Array(items) => {
            position(number(key)?).and_then(|position| items.get(position)).cloned()
        }
        Value::Object(fields) => fields.get(&text(key)?).cloned(),
        _ => return Err("a list or a map is expected".to_owned()),
    })
}

fn merged(arguments: &Arguments<'_>) -> Result<Value, String> {
    let mut all = Map::new();
    for position in 0..arguments.count() {
        if !arguments.at(position)?.is_null() {
            all.extend(arguments.map(position)?.clone());
        }
    }
    Ok(Value::Object(all))
}

fn flatten(items: &[Value], flat: &mut Vec<Value>) {
    for item in items {
        match item {
            Value::Array(items) => flatten(items, flat),
            item => flat.push(item.clone()),
        }
    }
}

fn distinct(items: Vec<Value>) -> Vec<Value> {
    let mut seen: Vec<Value> = Vec::new();
    for item in items {
        if !seen.iter().any(|known| same(known, &item)) {
            seen.push(item);
        }
    }
    seen
}

/// A set as a list: without what is there twice, in the order of the texts.
fn set(items: Vec<Value>) -> Vec<Value> {
    let mut items = distinct(items);
    items.sort_by_key(|item| text(item).unwrap_or_else(|_| item.to_string()));
    items
}

fn sets(
    arguments: &Arguments<'_>,
    act: fn(&[Value], &[Value]) -> Vec<Value>,
) -> Result<Vec<Value>, String> {
    let mut lists = lists(arguments)?.into_iter();
    let first = lists.next().ok_or("a list is expected")?.to_vec();
    Ok(set(lists.fold(first, |made, list| act(&made, list))))
}

fn kept(items: &[Value], others: &[Value], if_there: bool) -> Vec<Value> {
    let is_there = |item: &&Value| others.iter().any(|other| same(other, item));
    items.iter().filter(|item| is_there(item) == if_there).cloned().collect()
}

fn product(arguments: &Arguments<'_>) -> Result<Vec<Value>, String> {
    let lists = lists(arguments)?;
    let count = lists.iter().try_fold(1_usize, |all, list| all.checked_mul(list.len()));
    if count.is_none_or(|count| count.saturating_mul(lists.len()) > MAX_SIZE / 64) {
        return Err("the result is too large".to_owned());
    }
    let mut rows = vec![Vec::new()];
    for list in lists {
        let longer = |row: &Vec<Value>| -> Vec<Vec<Value>> {
            list.iter().map(|item| [row.clone(), vec![item.clone()]].concat()).collect()
        };
        rows = rows.iter().flat_map(longer).collect();
    }
    Ok(rows.into_iter().map(Value::Array).collect())
}
