//! Pods leave nodes with NoExecute taints that they do not tolerate, at once or after their `tolerationSeconds`.
//!
//! How long a pod may stay is found once, by the times in the objects, and then measured by this process' own clock: a
//! machine without a battery may see its clock jump by years, and no pod may be evicted for that.

use super::conditions::Condition;
use super::driver::{Controller, Requeue, Wakes};
use super::node_lifecycle::by_node;
use super::scheduler::toleration_matches;
use super::{Context, apply, pods};
use crate::cache::{Cache, Key};
use crate::events::{Normal, Recorder};
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, Taint, Toleration};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct TaintEviction {
    client: Client,
    recorder: Recorder,
    nodes: Cache<Node>,
    pods: Cache<Pod>,
    /// The pods on nodes with such taints that still have time. Bounded by the pods.
    leaving: Mutex<HashMap<Key, Leaving>>,
}

/// A pod that may stay until `at`.
struct Leaving {
    uid: Option<String>,
    /// When it was first seen with its node's taints: `kubectl taint` writes no time.
    since: Timestamp,
    /// The end as the objects say it.
    when: Timestamp,
    at: Instant,
}

pub fn new(context: &Context) -> Box<dyn Controller> {
    Box::new(TaintEviction {
        client: context.client.clone(),
        recorder: context.recorder.clone(),
        nodes: context.caches.of(),
        pods: context.caches.of(),
        leaving: Mutex::default(),
    })
}

fn no_execute(node: &Node) -> Vec<&Taint> {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.filter(|t| t.effect == "NoExecute").collect()
}

/// When a pod must leave that was first seen with its node's taints at `since`; None: it may stay.
fn deadline(tolerations: &[Toleration], taints: &[&Taint], since: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let mut earliest: Option<Timestamp> = None;
    for taint in taints {
        let added = taint.time_added.as_ref().map_or(since, |t| t.0);
        let matching: Vec<_> = tolerations.iter().filter(|t| toleration_matches(t, taint)).collect();
        if matching.is_empty() {
            return Some(now.min(added));
        }
        // The shortest of the tolerations that end; none ends: it stays in spite of this taint.
        let seconds = matching.iter().filter_map(|t| t.toleration_seconds).map(|s| s.max(0)).min();
        let end = seconds.and_then(|s| added.checked_add(jiff::SignedDuration::from_secs(s)).ok());
        earliest = match (earliest, end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    earliest
}

#[async_trait]
impl Controller for TaintEviction {
    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        let pods = self.pods.clone();
        wakes.on(&self.nodes, move |change| {
            let taints = |node: Option<&std::sync::Arc<Node>>| {
                node.map(|n| no_execute(n).into_iter().cloned().collect::<Vec<_>>()).unwrap_or_default()
            };
            let (old, new) = (taints(change.old.as_ref()), taints(change.new.as_ref()));
            if old == new {
                return Vec::new();
            }
            pods.by(&by_node(), &change.key.name).iter().map(|p| Key::of(p.as_ref())).collect()
        });
        let nodes = self.nodes.clone();
        wakes.on(&self.pods, move |change| {
            let bound = change.new.as_ref().and_then(|pod| pods::node_name(pod));
            let node = bound.and_then(|name| nodes.get("", name));
            node.filter(|n| !no_execute(n).is_empty()).map(|_| change.key.clone()).into_iter().collect()
        });
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let now = crate::time::now();
        let Some((pod, left)) = self.leaves(key, now) else {
            self.leaving.lock().remove(key);
            return Ok(Requeue::Done);
        };
        if !left.is_zero() {
            return Ok(Requeue::After(left));
        }
        let message = format!("Marking for deletion Pod {key}");
        self.recorder.event(&pod.object_ref(&()), Normal, "TaintManagerEviction", message);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let reason = ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint");
        let mut condition = PodCondition::new("DisruptionTarget", "True", reason.0, reason.1, now);
        condition.observed_generation = pod.metadata.generation;
        let change = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(change)).await {
            Err(error) if apply::is_not_found(&error) => return Ok(Requeue::Done),
            told => drop(told?),
        }
        let preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        match api.delete(&key.name, &DeleteParams { preconditions, ..DeleteParams::default() }).await {
            Err(error) if !apply::is_not_found(&error) => Err(error.into()),
            _ => Ok(Requeue::Done),
        }
    }
}

impl TaintEviction {
    /// The pod and how long it may still stay; None: as long as it likes.
    fn leaves(&self, key: &Key, now: Timestamp) -> Option<(Arc<Pod>, Duration)> {
        let pod = self.pods.at(key).filter(|pod| !pods::is_terminating(pod))?;
        let node = self.nodes.get("", pods::node_name(&pod)?)?;
        let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
        let mut leaving = self.leaving.lock();
        let known = leaving.get(key).filter(|l| l.uid == pod.metadata.uid);
        let since = known.map_or(now, |l| l.since);
        let when = deadline(tolerations, &no_execute(&node), since, now)?;
        let at = known.filter(|l| l.when == when).map_or_else(
            || Instant::now() + Duration::try_from(when.duration_since(now)).unwrap_or_default(),
            |known| known.at,
        );
        leaving.insert(key.clone(), Leaving { uid: pod.metadata.uid.clone(), since, when, at });
        drop(leaving);
        Some((pod, at.saturating_duration_since(Instant::now())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn tolerations_give_time() {
        let taint = |key: &str| -> Taint {
            let value = json!({"key": key, "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"});
            serde_json::from_value(value).unwrap()
        };
        let (a, b) = (taint("a"), taint("b"));
        let tolerates = |key: &str, seconds: Value| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let cases = [
            (json!([]), vec![&a], Some("2026-01-01T00:00:00Z")),
            (json!([tolerates("a", Value::Null)]), vec![&a], None),
            (json!([tolerates("a", 300.into())]), vec![&a], Some("2026-01-01T00:05:00Z")),
            (
                json!([tolerates("a", 300.into()), tolerates("b", 100.into())]),
                vec![&a, &b],
                Some("2026-01-01T00:01:40Z"),
            ),
            (
                json!([tolerates("a", 300.into()), tolerates("b", Value::Null)]),
                vec![&a, &b],
                Some("2026-01-01T00:05:00Z"),
            ),
            (json!([tolerates("a", 300.into())]), vec![&a, &b], Some("2026-01-01T00:00:00Z")),
            (json!([{"operator": "Exists"}]), vec![&a, &b], None),
        ];
        for (tolerations, taints, expected) in cases {
            let parsed: Vec<Toleration> = serde_json::from_value(tolerations.clone()).unwrap();
            let told = deadline(&parsed, &taints, now, now).map(|t| t.to_string());
            assert_eq!(told.as_deref(), expected, "{tolerations}");
        }
    }

    /// `kubectl taint` writes no time: the toleration runs from when the taint was seen, not from each look.
    #[test]
    fn a_taint_without_a_time_counts_from_when_it_was_seen() {
        let taint: Taint = serde_json::from_value(json!({"key": "a", "effect": "NoExecute"})).unwrap();
        let toleration = json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 5}]);
        let tolerations: Vec<Toleration> = serde_json::from_value(toleration).unwrap();
        let seen: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let later: Timestamp = "2026-01-01T00:00:07Z".parse().unwrap();
        let told = deadline(&tolerations, &[&taint], seen, later).unwrap();
        assert_eq!(told.to_string(), "2026-01-01T00:00:05Z");
    }
}
