//! TaintToleration: nodes repel pods that do not tolerate their taints.

use super::{Event, Filter, Plugin, Refusal, Scale, Score};
use crate::controllers::scheduler::cluster::{Cluster, NodeInfo, PodInfo};
use k8s_openapi::api::core::v1::{Taint, Toleration};

pub struct TaintToleration;

fn tolerations(pod: &PodInfo) -> &[Toleration] {
    pod.spec().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
}

/// Does the pod tolerate this taint?
pub fn tolerates(pod: &PodInfo, taint: &Taint) -> bool {
    tolerations(pod).iter().any(|t| toleration_matches(t, taint))
}

/// The API reference's rules for Toleration: an empty key with Exists is all taints, an empty effect all effects.
pub fn toleration_matches(toleration: &Toleration, taint: &Taint) -> bool {
    let said = |field: &Option<String>| field.as_deref().unwrap_or("").to_owned();
    let (effect, key) = (said(&toleration.effect), said(&toleration.key));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    let value = (said(&toleration.value), said(&taint.value));
    match said(&toleration.operator).as_str() {
        "" | "Equal" => value.0 == value.1 && (!key.is_empty() || taint.key.is_empty()),
        "Exists" => true,
        "Lt" => numbers(&value).is_some_and(|(limit, held)| held < limit),
        "Gt" => numbers(&value).is_some_and(|(limit, held)| held > limit),
        _ => false,
    }
}

fn numbers(pair: &(String, String)) -> Option<(i64, i64)> {
    Some((pair.0.parse().ok()?, pair.1.parse().ok()?))
}

fn taints(node: &NodeInfo) -> &[Taint] {
    node.node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Filter<'a>> {
        Some(Box::new(|node| {
            let mut hard = taints(node).iter().filter(|t| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute"));
            let refusal = || Refusal::never("node(s) had untolerated taint(s)");
            if hard.all(|taint| tolerates(pod, taint)) { Ok(()) } else { Err(refusal()) }
        }))
    }

    fn score<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Score<'a>> {
        let points = Box::new(|node: &NodeInfo| {
            let soft = taints(node).iter().filter(|t| t.effect == "PreferNoSchedule");
            soft.filter(|taint| !tolerates(pod, taint)).count() as i64
        });
        Some(Score { points, scale: Scale::Fewest })
    }

    fn weight(&self) -> i64 {
        3
    }

    fn helped_by(&self, event: Event) -> bool {
        matches!(event, Event::NodeAdded | Event::NodeChanged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tolerations_match_as_documented() {
        let taint: Taint = serde_json::from_value(json!({"key": "k", "value": "5", "effect": "NoSchedule"})).unwrap();
        let cases = [
            (json!({"key": "k", "operator": "Equal", "value": "5", "effect": "NoSchedule"}), true),
            (json!({"key": "k", "value": "5"}), true),
            (json!({"key": "k", "value": "6"}), false),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"operator": "Exists"}), true),
            (json!({"operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"key": "k", "operator": "Gt", "value": "4"}), true),
            (json!({"key": "k", "operator": "Lt", "value": "4"}), false),
            (json!({"value": "5"}), false),
        ];
        for (toleration, expected) in cases {
            let parsed = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(toleration_matches(&parsed, &taint), expected, "{toleration}");
        }
    }
}
