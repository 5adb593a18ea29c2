//! Brings the default RBAC policy into the cluster (upstream's reconciliation): missing objects are made, missing rules,
//! subjects, labels and annotations added; what administrators added stays. An object whose autoupdate annotation is
//! `"false"` is left alone.

use super::policy::{self, AUTOUPDATE, Item};
use super::writer::Writer;
use crate::object::{Object, ObjectExt};
use crate::server::authz::rbac::GROUP;
use crate::server::authz::rule::{Rule, uncovered};
use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use std::collections::HashMap;

/// Writes under way at once: they share group commits.
const CONCURRENCY: usize = 32;

/// What has to be done for one object.
#[derive(Debug, PartialEq)]
enum Step {
    Create(Object),
    Update(Object),
    /// A binding's role cannot change: delete and create.
    Replace(Object),
}

pub async fn reconcile(writer: &Writer) -> Result<()> {
    let mut existing: HashMap<(&str, String, String), Object> = HashMap::new();
    for resource in ["clusterroles", "clusterrolebindings", "roles", "rolebindings"] {
        for object in writer.list(&format!("/apis/{GROUP}/v1/{resource}")).await? {
            existing.insert((resource, object.namespace().to_owned(), object.name().to_owned()), object);
        }
    }
    let steps = policy::all().into_iter().filter_map(|item| {
        let key = (item.resource, item.object.namespace().to_owned(), item.object.name().to_owned());
        let collection = collection(&item);
        plan(item.object, existing.remove(&key)).map(|step| (collection, step))
    });
    let apply = async |(collection, step): (String, Step)| match step {
        Step::Create(object) => writer.create(&collection, &object).await,
        Step::Update(object) => writer.replace(&collection, &object).await,
        Step::Replace(object) => {
            writer.delete(&collection, object.name()).await?;
            writer.create(&collection, &object).await
        }
    };
    stream::iter(steps.map(apply)).buffer_unordered(CONCURRENCY).try_collect().await
}

fn collection(item: &Item) -> String {
    match item.object.namespace() {
        "" => format!("/apis/{GROUP}/v1/{}", item.resource),
        namespace => format!("/apis/{GROUP}/v1/namespaces/{namespace}/{}", item.resource),
    }
}

/// How to get from what exists to what the policy wants.
fn plan(wanted: Object, existing: Option<Object>) -> Option<Step> {
    let Some(mut object) = existing else { return Some(Step::Create(wanted)) };
    if object.annotations().and_then(|a| a.get(AUTOUPDATE)).is_some_and(|v| v == "false") {
        return None;
    }
    let role = |o: &Object| (o.str_at(&["roleRef", "kind"]).to_owned(), o.str_at(&["roleRef", "name"]).to_owned());
    if role(&object) != role(&wanted) {
        return Some(Step::Replace(wanted));
    }
    let mut changed = add_missing_keys(&mut object, &wanted, "labels");
    changed |= add_missing_keys(&mut object, &wanted, "annotations");
    if wanted.get("aggregationRule").is_some() {
        changed |= add_missing_items(&mut object, &wanted, &["aggregationRule", "clusterRoleSelectors"]);
    } else if object.get("aggregationRule").is_none_or(Value::is_null) {
        changed |= add_missing_rules(&mut object, &wanted);
    }
    changed |= add_missing_items(&mut object, &wanted, &["subjects"]);
    changed.then_some(Step::Update(object))
}

fn add_missing_keys(object: &mut Object, wanted: &Object, map: &str) -> bool {
    let Some(wanted) = wanted.at(&["metadata", map]).and_then(Value::as_object) else { return false };
    let mut changed = false;
    for (key, value) in wanted {
        if object.at(&["metadata", map, key]).is_none() {
            object.set_at(&["metadata", map, key], value.clone());
            changed = true;
        }
    }
    changed
}

fn add_missing_items(object: &mut Object, wanted: &Object, path: &[&str]) -> bool {
    let Some(wanted) = wanted.at(path).and_then(Value::as_array) else { return false };
    let mut items = object.at(path).and_then(Value::as_array).cloned().unwrap_or_default();
    let before = items.len();
    for item in wanted {
        if !items.iter().any(|have| covers(have, item)) {
            items.push(item.clone());
        }
    }
    let changed = items.len() != before;
    if changed {
        object.set_at(path, items.into());
    }
    changed
}

/// Equal, but for fields that the server defaulted.
fn covers(have: &Value, want: &Value) -> bool {
    match (have, want) {
        (Value::Object(have), Value::Object(want)) => {
            want.iter().all(|(key, value)| have.get(key).is_some_and(|h| covers(h, value)))
        }
        _ => have == want,
    }
}

fn add_missing_rules(object: &mut Object, wanted: &Object) -> bool {
    let missing = uncovered(&Rule::of_role(object), &Rule::of_role(wanted));
    if missing.is_empty() {
        return false;
    }
    let mut rules = object.get("rules").and_then(Value::as_array).cloned().unwrap_or_default();
    rules.extend(missing.iter().map(Rule::to_value));
    object["rules"] = rules.into();
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn role(rules: Value, annotations: Value) -> Object {
        json!({"metadata": {"name": "r", "labels": {"a": "1"}, "annotations": annotations}, "rules": rules})
    }

    fn rule(verbs: &[&str]) -> Value {
        json!({"verbs": verbs, "apiGroups": [""], "resources": ["pods"]})
    }

    #[test]
    fn only_what_is_missing_is_added() {
        let wanted = || role(json!([rule(&["get", "list"])]), json!({AUTOUPDATE: "true"}));
        assert_eq!(plan(wanted(), None), Some(Step::Create(wanted())));
        assert_eq!(plan(wanted(), Some(wanted())), None);
        let more = role(json!([rule(&["get", "list", "delete"])]), json!({AUTOUPDATE: "true"}));
        assert_eq!(plan(wanted(), Some(more)), None);
        let less = role(json!([rule(&["get"])]), json!({AUTOUPDATE: "true", "own": "x"}));
        let Some(Step::Update(got)) = plan(wanted(), Some(less)) else { panic!("rules are missing") };
        assert_eq!(got["rules"], json!([rule(&["get"]), rule(&["list"])]));
        assert_eq!(got["metadata"]["annotations"]["own"], "x");
        let kept = role(json!([]), json!({AUTOUPDATE: "false"}));
        assert_eq!(plan(wanted(), Some(kept)), None);
    }

    #[test]
    fn bindings_gain_subjects_and_lose_foreign_roles() {
        let binding = |role: &str, subjects: Value| json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": subjects});
        let user = |name: &str| json!({"kind": "User", "name": name});
        let wanted = || binding("x", json!([user("a")]));
        let other = binding("x", json!([user("b")]));
        let Some(Step::Update(got)) = plan(wanted(), Some(other)) else { panic!("a subject is missing") };
        assert_eq!(got["subjects"], json!([user("b"), user("a")]));
        assert_eq!(plan(wanted(), Some(binding("y", json!([user("a")])))), Some(Step::Replace(wanted())));
    }
}
