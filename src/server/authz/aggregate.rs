//! Aggregated ClusterRoles: their rules are those of all roles that a label selector picks (upstream's
//! clusterrole-aggregation controller).

use crate::object::{Object, ObjectExt};
use serde_json::{Map, Value};

/// The rules an aggregated ClusterRole must have, or None where it has them already or is not aggregated.
pub fn rules_for(role: &Object, all: &[Object]) -> Option<Value> {
    let selectors = role.at(&["aggregationRule", "clusterRoleSelectors"]).and_then(Value::as_array)?;
    let mut picked: Vec<&Object> = Vec::new();
    for selector in selectors {
        let matches = |r: &&Object| r.name() != role.name() && selects(selector, r.labels());
        picked.extend(all.iter().filter(matches));
    }
    picked.sort_by_key(|r| r.name());
    let mut rules: Vec<&Value> = Vec::new();
    for rule in picked.iter().filter_map(|r| r.get("rules").and_then(Value::as_array)).flatten() {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    let has = role.get("rules").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let same = has.len() == rules.len() && has.iter().eq(rules.iter().copied());
    (!same).then(|| rules.into_iter().cloned().collect::<Vec<_>>().into())
}

/// Whether a `metav1.LabelSelector` selects these labels.
fn selects(selector: &Value, labels: Option<&Map<String, Value>>) -> bool {
    let label = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
    let wanted = selector.get("matchLabels").and_then(Value::as_object);
    let equal = wanted.into_iter().flatten().all(|(key, value)| label(key) == value.as_str());
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    equal
        && expressions.into_iter().flatten().all(|e| {
            let value = label(e.str_at(&["key"]));
            let values = e.get("values").and_then(Value::as_array);
            let listed = value.is_some_and(|v| values.into_iter().flatten().any(|x| x.as_str() == Some(v)));
            match e.str_at(&["operator"]) {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
