//! Strategic merge patch: Kubernetes' own, driven by the patch strategies and merge keys of the schema table
//! (API conventions, "Strategic merge patch").

use super::Typed;
use crate::object::Object;
use crate::server::schema::{Field, PatchStrategy, Schema, Type};
use crate::status::{Result, Status};
use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";

/// Merge `patch` into `current` with all directives ($patch, $retainKeys, $setElementOrder, $deleteFromPrimitiveList).
pub fn patch(current: &Object, patch: &Object, typed: Typed<'_>) -> Result<Object> {
    let Value::Object(change) = patch else {
        return Err(Status::bad_request("a strategic merge patch must be a JSON object"));
    };
    let empty = Map::new();
    let base = current.as_object().unwrap_or(&empty).clone();
    Ok(Value::Object(merge_map(base, change, Some(&Type::Struct(typed.ty)), typed.schema)?))
}

/// The type of a member of a struct or map, and how its lists merge.
fn member<'a>(ty: Option<&'a Type>, key: &str, schema: &'a Schema) -> (Option<&'a Type>, Option<&'a PatchStrategy>) {
    match ty {
        Some(Type::Struct(id)) => {
            let field: Option<&Field> = schema.get(*id).field(key);
            (field.map(|f| &f.ty), field.map(|f| &f.patch))
        }
        Some(Type::Map(element)) => (Some(element), None),
        _ => (None, None),
    }
}

fn merge_map(
    mut base: Map<String, Value>,
    patch: &Map<String, Value>,
    ty: Option<&Type>,
    schema: &Schema,
) -> Result<Map<String, Value>> {
    match directive(patch)? {
        Some("replace") => return Ok(without_directives(patch)),
        Some("delete") => return Ok(Map::new()),
        _ => {}
    }
    if let Some(keep) = patch.get(RETAIN_KEYS) {
        let keep = keep.as_array().ok_or_else(|| malformed(RETAIN_KEYS))?;
        base.retain(|key, _| keep.iter().any(|k| k == key.as_str()));
    }
    for (key, value) in patch {
        if key.starts_with('$') {
            continue;
        }
        if value.is_null() {
            base.remove(key);
            continue;
        }
        let (inner, strategy) = member(ty, key, schema);
        let merged = merge_value(base.remove(key), value, inner, strategy, &Directives::of(patch, key)?, schema)?;
        base.insert(key.clone(), merged);
    }
    directives_alone(&mut base, patch, ty, schema)?;
    Ok(base)
}

/// `$setElementOrder/x` or `$deleteFromPrimitiveList/x` whose list `x` is not itself in the patch.
fn directives_alone(
    base: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    ty: Option<&Type>,
    schema: &Schema,
) -> Result<()> {
    for directive in patch.keys() {
        let name = directive.strip_prefix(ORDER).or_else(|| directive.strip_prefix(DELETE_PRIMITIVES));
        let Some(name) = name.filter(|n| !patch.contains_key(*n)) else { continue };
        if let Some(Value::Array(items)) = base.remove(name) {
            let (_, strategy) = member(ty, name, schema);
            let directives = Directives::of(patch, name)?;
            let kept = delete_primitives(items.clone(), directives.delete);
            let ordered = order(kept, directives.order.unwrap_or(&[]), &items, key_of(strategy));
            base.insert(name.to_owned(), Value::Array(ordered));
        }
    }
    Ok(())
}

/// The list directives that belong to one field.
struct Directives<'a> {
    order: Option<&'a [Value]>,
    delete: Option<&'a [Value]>,
}

impl<'a> Directives<'a> {
    fn of(patch: &'a Map<String, Value>, field: &str) -> Result<Self> {
        let list = |prefix: &str| {
            let name = format!("{prefix}{field}");
            let found = patch.get(&name);
            found.map(|v| v.as_array().map(Vec::as_slice).ok_or_else(|| malformed(&name))).transpose()
        };
        Ok(Directives { order: list(ORDER)?, delete: list(DELETE_PRIMITIVES)? })
    }
}

fn merge_value(
    base: Option<Value>,
    patch: &Value,
    ty: Option<&Type>,
    strategy: Option<&PatchStrategy>,
    directives: &Directives<'_>,
    schema: &Schema,
) -> Result<Value> {
    match (base, patch) {
        (Some(Value::Object(base)), Value::Object(change)) => Ok(Value::Object(merge_map(base, change, ty, schema)?)),
        // Nothing or another type there: the patch stands alone, its own directives done.
        (_, Value::Object(change)) => Ok(Value::Object(merge_map(Map::new(), change, ty, schema)?)),
        (base, Value::Array(change)) if strategy.is_some_and(|s| s.merge) => {
            let base = match base {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            };
            merge_list(base, change, ty, key_of(strategy), directives, schema).map(Value::Array)
        }
        _ => Ok(patch.clone()),
    }
}

fn key_of(strategy: Option<&PatchStrategy>) -> Option<&'static str> {
    strategy.and_then(|s| s.merge_key)
}

fn merge_list(
    base: Vec<Value>,
    patch: &[Value],
    ty: Option<&Type>,
    merge_key: Option<&'static str>,
    directives: &Directives<'_>,
    schema: &Schema,
) -> Result<Vec<Value>> {
    let Some(key) = merge_key else {
        let mut out = delete_primitives(base.clone(), directives.delete);
        for item in patch {
            if !out.contains(item) {
                out.push(item.clone());
            }
        }
        return Ok(order(out, directives.order.unwrap_or(patch), &base, None));
    };
    let element = match ty {
        Some(Type::List(element)) => Some(element.as_ref()),
        _ => None,
    };
    if replaces_all(patch)? {
        return Ok(patch.iter().filter(|i| i.get(DIRECTIVE).is_none()).cloned().collect());
    }
    let mut out = base.clone();
    let mut present = Vec::new();
    for item in patch {
        let Value::Object(change) = item else {
            return Err(Status::bad_request(format!("expected objects with key {key:?} in a list of the patch")));
        };
        let id = change
            .get(key)
            .ok_or_else(|| Status::bad_request(format!("map: {item} does not contain declared merge key: {key}")))?;
        let at = out.iter().position(|o| o.get(key) == Some(id));
        if directive(change)? == Some("delete") {
            out.retain(|o| o.get(key) != Some(id));
            continue;
        }
        present.push(item.clone());
        let old = match at.map(|i| out[i].take()) {
            Some(Value::Object(old)) => old,
            _ => Map::new(),
        };
        let merged = Value::Object(merge_map(old, change, element, schema)?);
        match at {
            Some(i) => out[i] = merged,
            None => out.push(merged),
        }
    }
    Ok(order(out, directives.order.unwrap_or(&present), &base, merge_key))
}

/// An item that is only `{"$patch": "replace"}` makes the rest of the list the whole new value.
fn replaces_all(patch: &[Value]) -> Result<bool> {
    for item in patch.iter().filter_map(Value::as_object) {
        if directive(item)? == Some("replace") && item.len() == 1 {
            return Ok(true);
        }
    }
    Ok(false)
}

fn delete_primitives(mut items: Vec<Value>, delete: Option<&[Value]>) -> Vec<Value> {
    items.retain(|i| !delete.unwrap_or(&[]).contains(i));
    items
}

/// Put `items` in order: those that `wanted` names follow it; the others keep their places among them as the server
/// had them (`before`), and where that says nothing come last.
fn order(items: Vec<Value>, wanted: &[Value], before: &[Value], key: Option<&str>) -> Vec<Value> {
    let id = |v: &Value| match key {
        Some(key) => v.get(key).cloned().unwrap_or(Value::Null),
        None => v.clone(),
    };
    let position = |list: &[Value], v: &Value| {
        let wanted = id(v);
        list.iter().position(|other| id(other) == wanted)
    };
    let (mut named, others): (Vec<Value>, Vec<Value>) = items.into_iter().partition(|i| position(wanted, i).is_some());
    named.sort_by_key(|i| position(wanted, i));
    let mut out = Vec::with_capacity(named.len() + others.len());
    let mut named = named.into_iter().peekable();
    let mut others = others.into_iter().peekable();
    while let (Some(left), Some(right)) = (named.peek(), others.peek()) {
        let other_first = match (position(before, left), position(before, right)) {
            (Some(named), Some(other)) => other < named,
            _ => false,
        };
        out.extend(if other_first { others.next() } else { named.next() });
    }
    out.extend(named.chain(others));
    out
}

fn directive(map: &Map<String, Value>) -> Result<Option<&str>> {
    match map.get(DIRECTIVE) {
        None => Ok(None),
        Some(Value::String(s)) if matches!(s.as_str(), "replace" | "delete" | "merge") => Ok(Some(s)),
        Some(other) => Err(Status::bad_request(format!("Unknown patch type found: {other}"))),
    }
}

fn without_directives(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter().filter(|(k, v)| !k.starts_with('$') && !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn malformed(name: &str) -> Status {
    Status::bad_request(format!("{name} must be a list"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::schema;
    use serde_json::json;

    fn check(kind: (&str, &str, &str), current: Value, change: Value, expect: Value) {
        let schema = schema::builtin();
        let ty = schema.of(kind.0, kind.1, kind.2).expect("a built-in kind");
        let got = patch(&current, &change, Typed { schema, ty }).expect("a valid patch");
        assert_eq!(got, expect, "{change}");
    }

    const POD: (&str, &str, &str) = ("", "v1", "Pod");

    #[test]
    fn lists_merge_by_key() {
        let two = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}});
        check(
            POD,
            two.clone(),
            json!({"spec": {"containers": [{"name": "b", "image": "3"}]}}),
            json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "3"}]}}),
        );
        check(
            POD,
            two.clone(),
            json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
            json!({"spec": {"containers": [{"name": "b", "image": "2"}]}}),
        );
        check(
            POD,
            two.clone(),
            json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "c", "image": "9"}]}}),
            json!({"spec": {"containers": [{"name": "c", "image": "9"}]}}),
        );
        check(
            POD,
            two.clone(),
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "image": null}]}}),
            json!({"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "a"}]}}),
        );
        // New items come first.
        check(
            POD,
            two.clone(),
            json!({"spec": {"containers": [{"name": "c", "image": "3"}]}}),
            json!({"spec": {"containers": [{"name": "c", "image": "3"}, {"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}}),
        );
        check(
            POD,
            two,
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
            json!({"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "a", "image": "1"}]}}),
        );
    }

    #[test]
    fn atomic_lists_are_replaced_and_primitive_lists_united() {
        let pod =
            json!({"metadata": {"finalizers": ["a/1", "b/2"]}, "spec": {"containers": [{"name": "a", "args": ["x"]}]}});
        check(
            POD,
            pod.clone(),
            json!({"spec": {"containers": [{"name": "a", "args": ["y"]}]}}),
            json!({"metadata": {"finalizers": ["a/1", "b/2"]}, "spec": {"containers": [{"name": "a", "args": ["y"]}]}}),
        );
        check(
            POD,
            pod,
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/1"], "finalizers": ["c/3"]}}),
            json!({"metadata": {"finalizers": ["c/3", "b/2"]}, "spec": {"containers": [{"name": "a", "args": ["x"]}]}}),
        );
    }

    #[test]
    fn maps_and_retained_keys() {
        check(
            POD,
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
            json!({"metadata": {"labels": {"a": null, "c": "3"}}}),
            json!({"metadata": {"labels": {"b": "2", "c": "3"}}}),
        );
        check(
            ("apps", "v1", "Deployment"),
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            json!({"spec": {"strategy": {"type": "Recreate"}}}),
        );
        check(
            POD,
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"labels": {"$patch": "replace", "z": "9"}}}),
            json!({"metadata": {"labels": {"z": "9"}}}),
        );
    }

    #[test]
    fn malformed_patches_are_refused() {
        let schema = schema::builtin();
        let typed = Typed { schema, ty: schema.of("", "v1", "Pod").expect("Pod") };
        for bad in [
            json!([]),
            json!({"spec": {"containers": [{"image": "x"}]}}),
            json!({"spec": {"$patch": "explode"}}),
            json!({"spec": {"$retainKeys": 1}}),
        ] {
            assert_eq!(patch(&json!({}), &bad, typed).map_err(|s| s.code()), Err(400), "{bad}");
        }
    }
}
