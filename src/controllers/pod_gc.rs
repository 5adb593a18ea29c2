//! Pods that nobody else removes: too many finished ones, those whose node is gone, those deleted before they had a
//! node, those on nodes declared out of service.

use super::conditions::{self, Condition};
use super::driver::{Controller, Requeue, Wakes};
use super::{Context, pods};
use crate::cache::{Cache, Key};
use async_trait::async_trait;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_secs(20);
/// A node must be missing for this long before its pods go.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Finished pods kept in the cluster (upstream's `--terminated-pod-gc-threshold`).
const FINISHED_MAX: usize = 12_500;
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

struct PodGc {
    client: Client,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    /// Nodes that pods name and that are not there, since when.
    missing: Mutex<HashMap<String, Instant>>,
}

pub fn new(context: &Context) -> Box<dyn Controller> {
    Box::new(PodGc {
        client: context.client.clone(),
        pods: context.caches.of(),
        nodes: context.caches.of(),
        missing: Mutex::default(),
    })
}

#[async_trait]
impl Controller for PodGc {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        wakes.reads(&self.pods);
        wakes.reads(&self.nodes);
        // One pass over everything, by the clock.
        wakes.stream(futures::stream::iter([vec![Key::default()]]).chain(futures::stream::pending()).boxed());
    }

    async fn reconcile(&self, _key: &Key) -> anyhow::Result<Requeue> {
        let (pods, nodes) = (self.pods.list(), self.nodes.list());
        let plan = self.plan(&pods, &nodes, Instant::now());
        for (pod, why) in plan {
            self.remove(&pod, why).await?;
        }
        Ok(Requeue::After(PERIOD))
    }
}

/// Why a pod is removed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Why {
    Finished,
    NodeGone,
    NeverScheduled,
    OutOfService,
}

impl PodGc {
    fn plan(&self, pods: &[Arc<Pod>], nodes: &[Arc<Node>], now: Instant) -> Vec<(Arc<Pod>, Why)> {
        let known: HashSet<&str> = nodes.iter().filter_map(|n| n.metadata.name.as_deref()).collect();
        let named: HashSet<&str> = pods.iter().filter_map(|p| pods::node_name(p)).collect();
        let mut missing = self.missing.lock();
        missing.retain(|node, _| named.contains(node.as_str()) && !known.contains(node.as_str()));
        for node in named.difference(&known) {
            missing.entry((*node).to_owned()).or_insert(now);
        }
        let gone = missing.iter().filter(|(_, since)| now.duration_since(**since) >= QUARANTINE);
        let gone: HashSet<&str> = gone.map(|(node, _)| node.as_str()).collect();
        let out: HashSet<&str> =
            nodes.iter().filter(|n| is_out(n)).filter_map(|n| n.metadata.name.as_deref()).collect();
        plan(pods, &gone, &out)
    }

    async fn remove(&self, pod: &Pod, why: Why) -> anyhow::Result<()> {
        let key = Key::of(pod);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        if !pods::is_finished(pod) && matches!(why, Why::NodeGone | Why::OutOfService) {
            let status = failed(pod, why, crate::time::now());
            let change = json!({"metadata": {"uid": pod.metadata.uid}, "status": status});
            match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(change)).await {
                Err(error) if !super::apply::is_not_found(&error) => return Err(error.into()),
                _ => {}
            }
        }
        let preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        let params = DeleteParams { preconditions, ..DeleteParams::default() }.grace_period(0);
        match api.delete(&key.name, &params).await {
            Err(error) if !super::apply::is_not_found(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// The end of a pod that no kubelet will report.
fn failed(pod: &Pod, why: Why, now: Timestamp) -> serde_json::Value {
    let held = pod.status.as_ref().and_then(|s| conditions::get(&s.conditions, "DisruptionTarget"));
    let message = "PodGC: node no longer exists";
    let target = PodCondition::new("DisruptionTarget", "True", "DeletionByPodGC", message, now);
    let target = held.filter(|c| c.status == "True").cloned().unwrap_or(target);
    match why {
        Why::NodeGone => json!({"phase": "Failed", "conditions": [target]}),
        _ => json!({"phase": "Failed"}),
    }
}

fn is_out(node: &Node) -> bool {
    let ready = node.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, "Ready"));
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    !ready && taints.into_iter().any(|t| t.key == OUT_OF_SERVICE)
}

fn plan(pods: &[Arc<Pod>], gone: &HashSet<&str>, out: &HashSet<&str>) -> Vec<(Arc<Pod>, Why)> {
    let verdict = |pod: &Pod| match pods::node_name(pod) {
        None if pods::is_terminating(pod) => Some(Why::NeverScheduled),
        Some(node) if gone.contains(node) => Some(Why::NodeGone),
        Some(node) if out.contains(node) && pods::is_terminating(pod) => Some(Why::OutOfService),
        _ => None,
    };
    let mut plan: Vec<_> = pods.iter().filter_map(|pod| Some((pod.clone(), verdict(pod)?))).collect();
    let mut finished: Vec<_> = pods.iter().filter(|p| pods::is_finished(p) && verdict(p).is_none()).collect();
    finished.sort_by_key(|p| p.metadata.creation_timestamp.as_ref().map(|Time(t)| *t));
    let surplus = finished.len().saturating_sub(FINISHED_MAX);
    plan.extend(finished.into_iter().take(surplus).map(|pod| (pod.clone(), Why::Finished)));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn pod(name: &str, node: Option<&str>, edit: impl FnOnce(&mut Value)) -> Arc<Pod> {
        let mut value = json!({"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": node, "containers": []}, "status": {"phase": "Running"}});
        edit(&mut value);
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn only_lost_pods_go() {
        let deleted = |p: &mut Value| p["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let pods = [
            pod("fine", Some("here"), |_| ()),
            pod("waiting", None, |_| ()),
            pod("deleted", None, deleted),
            pod("lost", Some("gone"), |_| ()),
            pod("leaving", Some("here"), deleted),
            pod("stuck", Some("out"), deleted),
            pod("stays", Some("out"), |_| ()),
        ];
        let plan = plan(&pods, &["gone"].into(), &["out"].into());
        let told: Vec<_> = plan.iter().map(|(p, why)| (p.metadata.name.as_deref().unwrap(), *why)).collect();
        assert_eq!(told, [("deleted", Why::NeverScheduled), ("lost", Why::NodeGone), ("stuck", Why::OutOfService)]);
    }

    #[test]
    fn the_oldest_finished_pods_beyond_the_threshold_go() {
        let made = |n: usize| {
            pod(&n.to_string(), Some("here"), |p| {
                p["status"]["phase"] = "Succeeded".into();
                if n == 7 {
                    p["metadata"]["creationTimestamp"] = "2025-01-01T00:00:00Z".into();
                }
            })
        };
        let pods: Vec<_> = (0..=FINISHED_MAX).map(made).collect();
        let plan = plan(&pods, &HashSet::new(), &HashSet::new());
        assert_eq!(plan.len(), 1);
        assert_eq!(plan[0].0.metadata.name.as_deref(), Some("7"));
    }
}
