//! What a node's silence and conditions mean: condition Unknown, taints. Pure.

use crate::controllers::conditions::get;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Condition, the status that taints, the taint.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
/// Conditions that nobody reports while the kubelet is silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

pub fn ready_status(node: &Node) -> &str {
    let conditions = node.status.as_ref().map(|s| &s.conditions);
    conditions.and_then(|c| get(c, "Ready")).map_or("", |c| c.status.as_str())
}

/// Conditions of a node whose kubelet has been silent for too long: those that were reported become Unknown.
pub fn silenced(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let mut conditions = node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let before = conditions.clone();
    for kind in REPORTED {
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            None => conditions.push(NodeCondition {
                type_: kind.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
            Some(known) if known.status != "Unknown" => {
                known.status = "Unknown".into();
                known.reason = Some("NodeStatusUnknown".into());
                known.message = Some("Kubelet stopped posting node status.".into());
                known.last_transition_time = Some(Time(now));
            }
            Some(_) => {}
        }
    }
    (conditions != before).then_some(conditions)
}

/// Whether pods may be driven from nodes that are not ready.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Evict {
    /// No, and those under way are called off: every node is away, which says more about us than about the nodes.
    Off,
    /// Not from further nodes: the zone's evictions are used up for now.
    Hold,
    On,
}

/// Does the node get its first NoExecute taint of ours, were it allowed? Such a taint costs one of the zone's evictions;
/// the change from one to the other does not.
pub fn begins_eviction(node: &Node) -> bool {
    let held = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    let driven =
        held.into_iter().any(|t| t.effect == "NoExecute" && [NOT_READY, UNREACHABLE].contains(&t.key.as_str()));
    matches!(ready_status(node), "False" | "Unknown") && !driven
}

/// The taints a node should have. Others' taints stay as they are.
pub fn taints(node: &Node, evict: Evict, now: Timestamp) -> Option<Vec<Taint>> {
    let held = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let conditions = node.status.as_ref().and_then(|s| s.conditions.clone());
    let is = |kind: &str, status: &str| get(&conditions, kind).is_some_and(|c| c.status == status);
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (kind, status, key) in BY_CONDITION {
        if is(kind, status) {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    if evict == Evict::On || evict == Evict::Hold && !begins_eviction(node) {
        let silent = is("Ready", "Unknown").then_some((UNREACHABLE, "NoExecute"));
        wanted.extend(silent.or(is("Ready", "False").then_some((NOT_READY, "NoExecute"))));
    }
    // A node that never said anything keeps the taint it was born with.
    if get(&conditions, "Ready").is_none() && held.iter().any(|t| t.key == NOT_READY) {
        wanted.push((NOT_READY, "NoSchedule"));
    }
    let ours = |key: &str| key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(.., k)| *k == key);
    let manages = |t: &Taint| ours(&t.key) && matches!(t.effect.as_str(), "NoSchedule" | "NoExecute");
    let mut taints: Vec<Taint> = held.iter().filter(|t| !manages(t)).cloned().collect();
    for (key, effect) in wanted {
        let known = held.iter().find(|t| t.key == key && t.effect == effect);
        let fresh = || Taint { key: key.into(), effect: effect.into(), time_added: Some(Time(now)), value: None };
        taints.push(known.cloned().unwrap_or_else(fresh));
    }
    let same = taints.len() == held.len() && taints.iter().all(|t| held.contains(t));
    (!same).then_some(taints)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn node(spec: Value, conditions: Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": conditions}}))
            .unwrap()
    }

    fn keys(node: &Node, evict: Evict) -> Option<Vec<String>> {
        taints(node, evict, now()).map(|t| t.iter().map(|t| format!("{}:{}", t.key, t.effect)).collect())
    }

    #[test]
    fn taints_follow_conditions() {
        let ready = |status: &str| json!([{"type": "Ready", "status": status}]);
        let own = json!({"key": "mine", "effect": "NoSchedule"});
        let taint = |key: &str, effect: &str| json!({"key": key, "effect": effect});
        let cases = [
            (json!({}), ready("True"), Evict::On, None),
            (
                json!({}),
                ready("False"),
                Evict::On,
                Some(vec![format!("{NOT_READY}:NoSchedule"), format!("{NOT_READY}:NoExecute")]),
            ),
            (json!({}), ready("False"), Evict::Hold, Some(vec![format!("{NOT_READY}:NoSchedule")])),
            (
                json!({"taints": [taint(NOT_READY, "NoExecute"), taint(NOT_READY, "NoSchedule")]}),
                ready("Unknown"),
                Evict::Hold,
                Some(vec![format!("{UNREACHABLE}:NoSchedule"), format!("{UNREACHABLE}:NoExecute")]),
            ),
            (
                json!({"taints": [taint(UNREACHABLE, "NoSchedule"), taint(UNREACHABLE, "NoExecute")]}),
                ready("Unknown"),
                Evict::Off,
                Some(vec![format!("{UNREACHABLE}:NoSchedule")]),
            ),
            (json!({}), ready("False"), Evict::Off, Some(vec![format!("{NOT_READY}:NoSchedule")])),
            (
                json!({"taints": [own.clone(), taint(NOT_READY, "NoExecute"), taint(NOT_READY, "NoSchedule")]}),
                ready("True"),
                Evict::On,
                Some(vec!["mine:NoSchedule".to_owned()]),
            ),
            (
                json!({"taints": [taint(NOT_READY, "NoExecute"), taint(NOT_READY, "NoSchedule")]}),
                ready("Unknown"),
                Evict::On,
                Some(vec![format!("{UNREACHABLE}:NoSchedule"), format!("{UNREACHABLE}:NoExecute")]),
            ),
            (
                json!({"unschedulable": true}),
                ready("True"),
                Evict::On,
                Some(vec![format!("{UNSCHEDULABLE}:NoSchedule")]),
            ),
            (json!({"taints": [taint(NOT_READY, "NoSchedule")]}), json!([]), Evict::On, None),
            (
                json!({}),
                json!([{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}]),
                Evict::On,
                Some(vec!["node.kubernetes.io/disk-pressure:NoSchedule".to_owned()]),
            ),
        ];
        for (spec, conditions, evict, expected) in cases {
            assert_eq!(keys(&node(spec.clone(), conditions.clone()), evict), expected, "{spec} {conditions}");
        }
    }

    #[test]
    fn silence_makes_conditions_unknown_once() {
        let mut silent = node(
            json!({}),
            json!([{"type": "Ready", "status": "True", "reason": "KubeletReady"},
            {"type": "NetworkUnavailable", "status": "False"}]),
        );
        let told = silenced(&silent, now()).unwrap();
        let ready = told.iter().find(|c| c.type_ == "Ready").unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("Unknown", Some("NodeStatusUnknown")));
        assert_eq!(ready.message.as_deref(), Some("Kubelet stopped posting node status."));
        assert_eq!(told.iter().find(|c| c.type_ == "NetworkUnavailable").unwrap().status, "False");
        assert_eq!(
            told.iter().find(|c| c.type_ == "DiskPressure").unwrap().reason.as_deref(),
            Some("NodeStatusNeverUpdated")
        );
        silent.status.as_mut().unwrap().conditions = Some(told);
        assert_eq!(silenced(&silent, now()), None);
    }
}
