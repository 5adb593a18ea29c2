//! Aggregated ClusterRoles: their rules are those of all roles that a label selector picks (upstream's
//! clusterrole-aggregation controller).

use crate::object::{Object, ObjectExt};
use crate::selector::LabelSelector;
use serde_json::Value;

/// The rules an aggregated ClusterRole must have, or None where it has them already or is not aggregated.
pub fn rules_for(role: &Object, all: &[Object]) -> Option<Value> {
    let selectors = role.at(&["aggregationRule", "clusterRoleSelectors"]).and_then(Value::as_array)?;
    let mut picked: Vec<&Object> = Vec::new();
    for selector in selectors {
        let Ok(selector) = LabelSelector::from_object(Some(selector)) else { continue };
        let matches = |r: &&Object| r.name() != role.name() && selector.matches_labels(r.labels());
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
