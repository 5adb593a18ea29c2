//! Pieces of Table rows that several kinds show: labels, selectors, containers, counts.

use super::tree::list;
use crate::object::{Object, ObjectExt};
use crate::quantity::Quantity;
use crate::server::table::Column;
use serde_json::Value;

pub const NONE: &str = "<none>";
pub const UNSET: &str = "<unset>";
pub const UNKNOWN: &str = "<unknown>";

/// A column that is always shown.
pub const fn text(name: &'static str) -> Column {
    Column::new(name, "string", 0)
}

/// A column of `-o wide`.
pub const fn wide(name: &'static str) -> Column {
    Column::new(name, "string", 1)
}

pub const fn integer(name: &'static str) -> Column {
    Column::new(name, "integer", 0)
}

pub const fn boolean(name: &'static str) -> Column {
    Column::new(name, "boolean", 0)
}

pub const CONTAINERS: Column = wide("Containers");
pub const IMAGES: Column = wide("Images");
pub const SELECTOR: Column = wide("Selector");

/// The text, or `<none>` for an empty one.
pub fn or_none(text: &str) -> Value {
    or(text, NONE)
}

pub fn or(text: &str, otherwise: &str) -> Value {
    if text.is_empty() { otherwise.into() } else { text.into() }
}

/// The Age cell.
pub fn age(obj: &Object, now: i64) -> Value {
    crate::time::age(obj.str_at(&["metadata", "creationTimestamp"]), now).into()
}

/// The string at a path; empty where there is none.
pub fn string(obj: &Object, path: &[&str]) -> Value {
    obj.str_at(path).into()
}

/// The integer at a path, 0 where there is none.
pub fn number(obj: &Object, path: &[&str]) -> i64 {
    super::tree::int_at(obj, path).unwrap_or(0)
}

/// How many entries the list or map at a path has.
pub fn count(obj: &Object, path: &[&str]) -> i64 {
    obj.at(path).map_or(0, |v| v.as_array().map_or_else(|| v.as_object().map_or(0, |m| m.len()), Vec::len)) as i64
}

/// `a=b,c=d`, or `<none>`.
pub fn labels(map: Option<&Value>) -> String {
    let map = map.and_then(Value::as_object);
    let pairs: Vec<String> =
        map.into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

/// A LabelSelector in its text form, or `<none>` for one that is empty.
pub fn selector(selector: Option<&Value>) -> String {
    let Some(selector) = selector else { return NONE.to_owned() };
    let mut terms: Vec<(&str, String)> = Vec::new();
    for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
        terms.push((key, format!("{key}={}", value.as_str().unwrap_or_default())));
    }
    for expression in list(selector, "matchExpressions") {
        let key = expression.str_at(&["key"]);
        let mut values: Vec<&str> = list(expression, "values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let term = match expression.str_at(&["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        terms.push((key, term));
    }
    terms.sort_by_key(|(key, _)| *key);
    let terms: Vec<String> = terms.into_iter().map(|(_, term)| term).collect();
    if terms.is_empty() { NONE.to_owned() } else { terms.join(",") }
}

/// Names and images of the containers of the pod spec at a path, comma separated.
pub fn containers(obj: &Object, pod_spec: &[&str]) -> [Value; 2] {
    let containers = obj.at(pod_spec).map(|spec| list(spec, "containers")).unwrap_or_default();
    let all = |key: &str| containers.iter().map(|c| c.str_at(&[key])).collect::<Vec<_>>().join(",");
    [all("name").into(), all("image").into()]
}

/// `True`, `False`, or `<unset>` for an absent boolean.
pub fn word(value: Option<&Value>) -> Value {
    match value.and_then(Value::as_bool) {
        Some(true) => "True".into(),
        Some(false) => "False".into(),
        None => UNSET.into(),
    }
}

/// A quantity in canonical form; what is none is shown as it is.
pub fn quantity(value: Option<&Value>) -> String {
    let text = value.and_then(Value::as_str).unwrap_or("0");
    text.parse::<Quantity>().map_or_else(|_| text.to_owned(), |q| q.to_string())
}

/// `RWO,RWX`: access modes in upstream's order, duplicates once.
pub fn access_modes(modes: Option<&Value>) -> String {
    const SHORT: [(&str, &str); 4] =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |mode: &str| modes.and_then(Value::as_array).is_some_and(|l| l.iter().any(|m| m == mode));
    SHORT.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// At most `max` texts, then ` + N more...`.
pub fn some_of(texts: &[String], max: usize) -> String {
    let shown = texts[..texts.len().min(max)].join(",");
    if texts.len() > max { format!("{shown} + {} more...", texts.len() - max) } else { shown }
}

/// The status of a condition, `""` where the condition is absent.
pub fn condition<'a>(obj: &'a Object, kind: &str) -> &'a str {
    let conditions = obj.get("status").map(|s| list(s, "conditions")).unwrap_or_default();
    conditions.iter().find(|c| c.str_at(&["type"]) == kind).map_or("", |c| c.str_at(&["status"]))
}

/// Addresses of a load balancer status, cut to 16 characters as kubectl shows them without `-o wide`.
pub fn load_balancer(obj: &Object) -> String {
    const WIDTH: usize = 16;
    let ingress = obj.at(&["status", "loadBalancer"]).map(|s| list(s, "ingress")).unwrap_or_default();
    let address = |i: &'_ Value| {
        [i.str_at(&["ip"]), i.str_at(&["hostname"])].into_iter().find(|s| !s.is_empty()).map(str::to_owned)
    };
    let all: std::collections::BTreeSet<String> = ingress.iter().filter_map(address).collect();
    let text = all.into_iter().collect::<Vec<_>>().join(",");
    if text.len() > WIDTH && text.is_ascii() { format!("{}...", &text[..WIDTH - 3]) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_as_text() {
        for (value, text) in [
            (json!({}), "<none>"),
            (json!({"matchLabels": {"b": "2", "a": "1"}}), "a=1,b=2"),
            (
                json!({"matchLabels": {"c": "x"}, "matchExpressions": [
                    {"key": "b", "operator": "NotIn", "values": ["z", "y"]},
                    {"key": "a", "operator": "Exists"}, {"key": "d", "operator": "DoesNotExist"},
                    {"key": "e", "operator": "In", "values": ["v"]}]}),
                "a,b notin (y,z),c=x,!d,e in (v)",
            ),
        ] {
            assert_eq!(selector(Some(&value)), text);
        }
    }
}
