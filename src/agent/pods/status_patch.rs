//! From the status that the API has to the one it should have: a strategic merge patch of what differs, and only of
//! fields that are the kubelet's.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// Fields that only the kubelet writes; `None` clears them.
const OURS: [&str; 13] = [
    "phase",
    "reason",
    "message",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "startTime",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "qosClass",
    "observedGeneration",
];
/// Lists that the API merges by `ip`: what is gone must be named.
const MERGED_BY_IP: [&str; 2] = ["hostIPs", "podIPs"];

/// The patch; None: nothing differs. `uid` keeps it from hitting a newer pod of the same name.
pub fn between(old: &PodStatus, new: &PodStatus, uid: &str) -> Option<Value> {
    let (old, new) = (object(old), object(new));
    let mut patch = Map::new();
    for field in OURS {
        let (before, after) = (old.get(field), new.get(field));
        if before == after {
            continue;
        }
        let value = match after {
            None => Value::Null,
            Some(after) if MERGED_BY_IP.contains(&field) => merged_by_ip(before, after),
            Some(after) => after.clone(),
        };
        patch.insert(field.to_owned(), value);
    }
    let list =
        |status: &Map<String, Value>| status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let before = list(&old);
    let changed: Vec<Value> =
        list(&new).into_iter().filter(|c| !before.contains(c)).map(|c| with_nulls(&before, c)).collect();
    if !changed.is_empty() {
        patch.insert("conditions".into(), changed.into());
    }
    (!patch.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": patch}))
}

/// A condition is merged into the old one of its type: what it has no more must be cleared.
fn with_nulls(before: &[Value], mut condition: Value) -> Value {
    let old = before.iter().find(|c| c["type"] == condition["type"]).and_then(Value::as_object);
    if let (Some(old), Some(new)) = (old, condition.as_object_mut()) {
        for key in old.keys() {
            new.entry(key.as_str()).or_insert(Value::Null);
        }
    }
    condition
}

fn object(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn merged_by_ip(before: Option<&Value>, after: &Value) -> Value {
    let list = |v: Option<&Value>| v.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut out = list(Some(after));
    for gone in list(before).iter().filter(|old| !list(Some(after)).contains(old)) {
        out.push(json!({"$patch": "delete", "ip": gone["ip"]}));
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs() {
        let status = |value: Value| -> PodStatus { serde_json::from_value(value).unwrap() };
        let condition = |kind: &str, on: &str| json!({"type": kind, "status": on});
        let waits = json!({"type": "Ready", "status": "False", "reason": "r", "message": "m"});
        let ready = json!({"type": "Ready", "status": "True", "reason": null, "message": null});
        let old = json!({"phase": "Pending", "reason": "x", "qosClass": "BestEffort", "podIPs": [{"ip": "1.1.1.1"}],
            "conditions": [waits, condition("other/gate", "True")]});
        let new = json!({"phase": "Running", "qosClass": "BestEffort", "podIPs": [{"ip": "2.2.2.2"}],
            "conditions": [condition("Ready", "True"), condition("other/gate", "True")]});
        let wanted = json!({"metadata": {"uid": "u"}, "status": {"phase": "Running", "reason": null,
            "podIPs": [{"ip": "2.2.2.2"}, {"$patch": "delete", "ip": "1.1.1.1"}], "conditions": [ready]}});
        assert_eq!(between(&status(old.clone()), &status(new), "u"), Some(wanted));
        assert_eq!(between(&status(old.clone()), &status(old), "u"), None);
    }
}
