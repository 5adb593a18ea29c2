//! Revisions: which ReplicaSet is the current template's, its name, its number, what `kubectl rollout` reads.

use super::size;
use crate::controllers::owners::controller_ref;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use std::collections::BTreeMap;

pub const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const HASH: &str = "pod-template-hash";
/// Annotations of a Deployment that its ReplicaSets do not inherit.
const NOT_INHERITED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    size::DESIRED,
    size::MAX,
    "deprecated.deployment.rollback.to",
];
/// Length of the history annotation; older numbers are cut off.
const HISTORY_BYTES: usize = 2000;

/// Is the set made from the Deployment's current template?
pub fn same_template(deployment: &Deployment, set: &ReplicaSet) -> bool {
    set.spec.template.as_ref().is_some_and(|held| equal_but_hash(&deployment.spec.template, held))
}

fn equal_but_hash(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let bare = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
            labels.remove(HASH);
        }
        template
    };
    let (a, b) = (bare(a), bare(b));
    a == b || without_empties(&a) == without_empties(&b)
}

/// An absent list and an empty one are the same to upstream's comparison.
fn without_empties(template: &PodTemplateSpec) -> Value {
    fn prune(value: Value) -> Value {
        match value {
            Value::Object(map) => {
                let pruned = map.into_iter().map(|(k, v)| (k, prune(v)));
                // Presence of an object counts (`emptyDir: {}`), of an empty list or map of strings it does not.
                Value::Object(
                    pruned.filter(|(k, v)| !(v.is_null() || is_empty_list(v) || is_empty_labels(k, v))).collect(),
                )
            }
            Value::Array(items) => Value::Array(items.into_iter().map(prune).collect()),
            other => other,
        }
    }
    fn is_empty_list(value: &Value) -> bool {
        value.as_array().is_some_and(Vec::is_empty)
    }
    fn is_empty_labels(key: &str, value: &Value) -> bool {
        let maps = ["labels", "annotations", "nodeSelector", "limits", "requests", "overhead", "metadata", "resources"];
        maps.contains(&key) && value.as_object().is_some_and(|m| m.is_empty())
    }
    prune(serde_json::to_value(template).unwrap_or_default())
}

/// The hash that names a template: short, without vowels. Equal templates have equal hashes for one `collisions`.
fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut bytes = serde_json::to_vec(template).unwrap_or_default();
    bytes.extend(collisions.iter().flat_map(|c| c.to_le_bytes()));
    super::super::hash::short(&bytes)
}

/// The set's number; 0 if it has none.
pub fn number(set: &ReplicaSet) -> i64 {
    set.metadata.annotations.as_ref().and_then(|a| a.get(REVISION)).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// A set for the current template, of size 0 and without a number.
pub fn new_set(deployment: &Deployment) -> ReplicaSet {
    let spec = deployment.spec.clone();
    let hash = hash(&spec.template, deployment.status.as_ref().and_then(|s| s.collision_count));
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH.into(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or(""))),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_ref(deployment)]),
            ..Default::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        },
        status: None,
    }
}

/// Number the current set and copy the Deployment's annotations (`kubernetes.io/change-cause` above all).
pub fn annotate(deployment: &Deployment, set: &mut ReplicaSet, number_now: i64) {
    let before = number(set);
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_INHERITED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    if before < number_now {
        if before > 0 {
            remember(annotations, before);
        }
        annotations.insert(REVISION.into(), number_now.to_string());
    }
}

/// A set that becomes current again keeps its former numbers.
fn remember(annotations: &mut BTreeMap<String, String>, before: i64) {
    let history = annotations.entry(HISTORY.into()).or_default();
    if !history.is_empty() {
        history.push(',');
    }
    history.push_str(&before.to_string());
    while history.len() > HISTORY_BYTES {
        *history = history.split_once(',').map_or(String::new(), |(_, rest)| rest.to_owned());
    }
}

/// Bring the annotations that a plan decided onto the set as the server has it.
pub fn keep_annotations(fresh: &mut ReplicaSet, planned: &ReplicaSet) {
    let annotations = fresh.metadata.annotations.get_or_insert_default();
    annotations.extend(planned.metadata.annotations.clone().unwrap_or_default());
}
