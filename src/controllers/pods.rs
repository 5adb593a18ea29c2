//! What controllers ask about pods, and pods made from templates.

use super::conditions;
use super::owners::controller_ref;
use crate::cache::Cached;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::time::Duration;

/// `controller.kubernetes.io/pod-deletion-cost`: pods with a lower one go first (KEP-2255).
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
}

pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Neither finished nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

pub fn is_ready(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, "Ready"))
}

/// When the pod became ready.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = conditions::get(&pod.status.as_ref()?.conditions, "Ready").filter(|c| c.status == "True")?;
    ready.last_transition_time.as_ref().map(|t| t.0)
}

/// Ready for at least `min_ready`.
pub fn is_available(pod: &Pod, min_ready: Duration, now: Timestamp) -> bool {
    is_ready(pod) && (min_ready.is_zero() || available_in(pod, min_ready, now) == Some(Duration::ZERO))
}

/// How long until a ready pod is available; None if it is not ready.
pub fn available_in(pod: &Pod, min_ready: Duration, now: Timestamp) -> Option<Duration> {
    let ready_for = now.duration_since(ready_since(pod)?);
    Some(min_ready.saturating_sub(Duration::try_from(ready_for).unwrap_or_default()))
}

pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    statuses.map(|c| c.restart_count).max().unwrap_or(0)
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(DELETION_COST)).and_then(|c| c.parse().ok()).unwrap_or(0)
}

/// A pod of `owner` from a template. The server makes the name.
pub fn from_template<O: Cached>(owner: &O, template: &PodTemplateSpec) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    let name = owner.meta().name.as_deref().unwrap_or("");
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: owner.meta().namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_ref(owner)]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Which of two active pods a shrinking set gives up first: the smaller one. `crowd` is the number of related active
/// pods on the pod's node. The order is upstream's `ActivePodsWithRanks`.
pub fn deletion_rank(pod: &Pod, crowd: usize, now: Timestamp) -> impl Ord + use<> {
    let phase_rank = match phase(pod) {
        "" | "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let ready = is_ready(pod);
    let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    (
        node_name(pod).is_some(),
        phase_rank,
        ready,
        deletion_cost(pod),
        std::cmp::Reverse(crowd),
        ready_since(pod).filter(|_| ready).map_or(u32::MAX, |t| age_class(t, now)),
        std::cmp::Reverse(restarts(pod)),
        created.map_or(u32::MAX, |t| age_class(t, now)),
        pod.metadata.uid.clone(),
    )
}

/// Ages on a logarithmic scale, so that equally young pods are chosen at random (KEP-2185).
fn age_class(since: Timestamp, now: Timestamp) -> u32 {
    let nanos = now.duration_since(since).as_nanos().max(0);
    128 - (nanos as u128).leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, edit: impl FnOnce(&mut Value)) -> Pod {
        let mut value = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n", "containers": []},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}]},
        });
        edit(&mut value);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_least_useful_pod_goes_first() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let order = [
            (pod("unassigned", |p| p["spec"]["nodeName"] = Value::Null), 1),
            (pod("pending", |p| p["status"]["phase"] = "Pending".into()), 1),
            (pod("unready", |p| p["status"]["conditions"] = json!([])), 1),
            (pod("cheap", |p| p["metadata"]["annotations"] = json!({DELETION_COST: "-5"})), 1),
            (pod("crowded", |_| ()), 2),
            (
                pod("ready-lately", |p| {
                    p["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T23:59:00Z".into()
                }),
                1,
            ),
            (
                pod("restarted", |p| {
                    p["status"]["containerStatuses"] =
                        json!([{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 3}])
                }),
                1,
            ),
            (pod("young", |p| p["metadata"]["creationTimestamp"] = "2026-01-01T23:00:00Z".into()), 1),
            (pod("steady", |_| ()), 1),
            (pod("dear", |p| p["metadata"]["annotations"] = json!({DELETION_COST: "5"})), 1),
        ];
        let mut ranked: Vec<_> = order.iter().rev().map(|(p, crowd)| (deletion_rank(p, *crowd, now), p)).collect();
        ranked.sort_by(|a, b| a.0.cmp(&b.0));
        let names: Vec<_> = ranked.iter().map(|(_, p)| p.metadata.name.as_deref().unwrap()).collect();
        assert_eq!(names, order.iter().map(|(p, _)| p.metadata.name.as_deref().unwrap()).collect::<Vec<_>>());
    }

    #[test]
    fn availability_needs_time() {
        let p = pod("p", |_| ());
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let wait = Duration::from_secs(30);
        assert!(is_available(&p, Duration::ZERO, at("2026-01-01T00:00:10Z")));
        assert!(!is_available(&p, wait, at("2026-01-01T00:00:20Z")));
        assert_eq!(available_in(&p, wait, at("2026-01-01T00:00:20Z")), Some(Duration::from_secs(20)));
        assert!(is_available(&p, wait, at("2026-01-01T00:00:40Z")));
        assert_eq!(available_in(&pod("p", |p| p["status"] = json!({})), wait, at("2026-01-01T00:00:40Z")), None);
    }
}
