//! Writing defaults into object trees, with Go's idea of "unset".

use crate::object::ObjectExt;
use serde_json::{Map, Value};

/// Nothing there: absent or null.
pub fn is_nil(parent: &Value, key: &str) -> bool {
    parent.get(key).is_none_or(Value::is_null)
}

/// Absent, null, or the zero value of its type: unset for Go fields that are no pointers.
pub fn is_zero(parent: &Value, key: &str) -> bool {
    parent.get(key).is_none_or(|value| match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    })
}

/// Default for a pointer field: an explicit zero stays. Nothing happens where `parent` is not an object.
pub fn default_nil(parent: &mut Value, key: &str, value: impl Into<Value>) {
    if is_nil(parent, key) {
        insert(parent, key, value.into());
    }
}

/// Default for a plain field: a zero counts as unset.
pub fn default_zero(parent: &mut Value, key: &str, value: impl Into<Value>) {
    if is_zero(parent, key) {
        insert(parent, key, value.into());
    }
}

fn insert(parent: &mut Value, key: &str, value: Value) {
    if let Some(map) = parent.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
}

/// The object under `key`, if there is one.
pub fn child<'a>(parent: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    parent.get_mut(key).filter(|v| v.is_object())
}

/// The object at a path, if there is one.
pub fn descend<'a>(parent: &'a mut Value, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(parent, |v, key| child(v, key))
}

/// The object under `key`, made if absent. None where `parent` or the value there is something else.
pub fn child_or_new<'a>(parent: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    default_nil(parent, key, Map::new());
    child(parent, key)
}

/// The items of the list under `key`.
pub fn items<'a>(parent: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    parent.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// The items of the list under `key`, to read.
pub fn list<'a>(parent: &'a Value, key: &str) -> &'a [Value] {
    parent.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Integer at a path.
pub fn int_at(value: &Value, path: &[&str]) -> Option<i64> {
    value.at(path).and_then(Value::as_i64)
}

/// True at a path; anything else is false.
pub fn bool_at(value: &Value, path: &[&str]) -> bool {
    value.at(path).and_then(Value::as_bool).unwrap_or(false)
}

/// Make `new[key]` what `old[key]` is, absence included.
pub fn keep(new: &mut Value, old: &Value, key: &str) {
    match old.get(key) {
        Some(value) => insert(new, key, value.clone()),
        None => _ = new.remove_at(&[key]),
    }
}

/// Equal, where absent, null and empty are the same (upstream's `Semantic.DeepEqual`).
pub fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    let empty = |v: &Value| match v {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    match (a.filter(|v| !empty(v)), b.filter(|v| !empty(v))) {
        (None, None) => true,
        (Some(Value::Object(x)), Some(Value::Object(y))) => {
            x.iter().all(|(k, v)| same(Some(v), y.get(k))) && y.iter().all(|(k, v)| same(x.get(k), Some(v)))
        }
        (Some(Value::Array(x)), Some(Value::Array(y))) => {
            x.len() == y.len() && x.iter().zip(y).all(|(v, w)| same(Some(v), Some(w)))
        }
        (x, y) => x == y,
    }
}
