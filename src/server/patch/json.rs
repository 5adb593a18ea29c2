//! JSON patch (RFC 6902), with upstream's limits.

use crate::object::Object;
use crate::status::{Reason, Result, Status};
use serde::Deserialize;
use serde_json::Value;

/// Upstream's bound on operations; more is 413.
const MAX_OPERATIONS: usize = 10_000;

/// Bytes that all `copy` operations of one patch may add together; more is 422.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Operation {
    Add { path: String, value: Value },
    Remove { path: String },
    Replace { path: String, value: Value },
    Move { from: String, path: String },
    Copy { from: String, path: String },
    Test { path: String, value: Value },
}

/// Apply a JSON patch document to an object. A failed `test` or a bad path is 422, a malformed document 400.
pub fn patch(current: &Object, document: &[u8]) -> Result<Object> {
    let operations: Vec<Operation> =
        serde_json::from_slice(document).map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
    if operations.len() > MAX_OPERATIONS {
        let text =
            format!("the allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}", operations.len());
        return Err(Status::new(Reason::RequestEntityTooLarge, text));
    }
    let mut out = current.clone();
    let mut copied = 0;
    for operation in operations {
        apply(&mut out, operation, &mut copied).map_err(refused)?;
    }
    Ok(out)
}

fn refused(why: String) -> Status {
    Status::new(Reason::Invalid, format!("the server rejected our request due to an error in our request: {why}"))
}

fn apply(root: &mut Value, operation: Operation, copied: &mut usize) -> Result<(), String> {
    match operation {
        Operation::Add { path, value } => add(root, &path, value),
        Operation::Remove { path } => remove(root, &path).map(drop),
        Operation::Replace { path, value } => {
            *root.pointer_mut(&path).ok_or_else(|| missing("replace", &path))? = value;
            Ok(())
        }
        Operation::Move { from, path } => {
            if path.starts_with(&format!("{from}/")) {
                return Err(format!("move operation cannot move {from} into itself"));
            }
            let value = remove(root, &from)?;
            add(root, &path, value)
        }
        Operation::Copy { from, path } => {
            let value = root.pointer(&from).ok_or_else(|| missing("copy", &from))?.clone();
            *copied += value.to_string().len();
            if *copied > MAX_COPIED_BYTES {
                return Err(format!("copy operations add more than {MAX_COPIED_BYTES} bytes"));
            }
            add(root, &path, value)
        }
        Operation::Test { path, value } => match root.pointer(&path) {
            Some(found) if *found == value => Ok(()),
            // A missing member and an explicit null are the same to upstream's library.
            None if value.is_null() => Ok(()),
            _ => Err(format!("testing value {path} failed")),
        },
    }
}

fn missing(operation: &str, path: &str) -> String {
    format!("{operation} operation does not apply: doc is missing path: {path}")
}

/// The parent's pointer and the last token, unescaped.
fn split(path: &str) -> Result<(&str, String), String> {
    let (parent, last) = path.rsplit_once('/').ok_or_else(|| format!("{path:?} is no JSON pointer"))?;
    Ok((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(root: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *root = value;
        return Ok(());
    }
    let (parent, last) = split(path)?;
    match root.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.insert(last, value);
            Ok(())
        }
        Some(Value::Array(items)) if last == "-" => {
            items.push(value);
            Ok(())
        }
        Some(Value::Array(items)) => {
            let index = last.parse::<usize>().ok().filter(|i| *i <= items.len());
            items.insert(index.ok_or_else(|| format!("add operation: invalid index {last} in {parent}"))?, value);
            Ok(())
        }
        _ => Err(missing("add", path)),
    }
}

fn remove(root: &mut Value, path: &str) -> Result<Value, String> {
    let (parent, last) = split(path)?;
    let removed = match root.pointer_mut(parent) {
        Some(Value::Object(map)) => map.remove(&last),
        Some(Value::Array(items)) => last.parse::<usize>().ok().filter(|i| *i < items.len()).map(|i| items.remove(i)),
        _ => None,
    };
    removed.ok_or_else(|| missing("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(current: Value, document: Value, expect: Result<Value, u16>) {
        let result = patch(&current, document.to_string().as_bytes()).map_err(|s| s.code());
        assert_eq!(result, expect, "{document}");
    }

    #[test]
    fn operations() {
        let doc = || json!({"a": {"b": 1}, "l": [1, 2], "x/y": 0});
        check(
            doc(),
            json!([{"op": "add", "path": "/l/1", "value": 9}]),
            Ok(json!({"a": {"b": 1}, "l": [1, 9, 2], "x/y": 0})),
        );
        check(
            doc(),
            json!([{"op": "add", "path": "/l/-", "value": 9}]),
            Ok(json!({"a": {"b": 1}, "l": [1, 2, 9], "x/y": 0})),
        );
        check(doc(), json!([{"op": "remove", "path": "/x~1y"}]), Ok(json!({"a": {"b": 1}, "l": [1, 2]})));
        check(
            doc(),
            json!([{"op": "replace", "path": "/a/b", "value": 2}]),
            Ok(json!({"a": {"b": 2}, "l": [1, 2], "x/y": 0})),
        );
        check(
            doc(),
            json!([{"op": "move", "from": "/a/b", "path": "/c"}]),
            Ok(json!({"a": {}, "c": 1, "l": [1, 2], "x/y": 0})),
        );
        check(
            doc(),
            json!([{"op": "copy", "from": "/a", "path": "/c"}, {"op": "test", "path": "/c/b", "value": 1}]),
            Ok(json!({"a": {"b": 1}, "c": {"b": 1}, "l": [1, 2], "x/y": 0})),
        );
        check(doc(), json!([{"op": "test", "path": "/a/b", "value": 2}]), Err(422));
        check(doc(), json!([{"op": "remove", "path": "/nope"}]), Err(422));
        check(doc(), json!([{"op": "replace", "path": "/l/7", "value": 0}]), Err(422));
        check(doc(), json!([{"op": "add", "path": "/l/7", "value": 0}]), Err(422));
        check(doc(), json!([{"op": "move", "from": "/a", "path": "/a/b"}]), Err(422));
        check(doc(), json!([{"op": "shout", "path": "/a"}]), Err(400));
        check(doc(), json!({"op": "add"}), Err(400));
    }
}
