//! Node lifecycle: nodes whose kubelet is silent become Unknown; conditions become taints, those that drive pods away no
//! faster than [`zones`] allow; pods of nodes that are not ready are not ready either.
//!
//! Silence is measured by this process' clock, from the last time that a heartbeat (Lease or status) was seen to
//! change: clocks of nodes do not matter.

mod plan;
mod zones;

use super::conditions::{self, Condition};
use super::driver::{Controller, Requeue, Wakes};
use super::{Context, apply, pods};
use crate::cache::{Cache, Index, Key};
use crate::events::{Normal, Recorder, Warning};
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use plan::Evict;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zones::{Health, Limits};

/// A node silent for this long is Unknown, unless `--node-monitor-grace-period` says otherwise.
pub const GRACE: Duration = Duration::from_secs(40);
/// A new node may take this long to speak for the first time (`--node-startup-grace-period`).
const START_GRACE: Duration = Duration::from_secs(60);
const LEASES: &str = "kube-node-lease";
/// Fraction of a second between the end of the grace and the look at it.
const MARGIN: Duration = Duration::from_millis(100);
/// When to look again at a node whose zone is too ill for evictions.
const ZONE_PAUSE: Duration = Duration::from_secs(5);

/// The last sign of life: what it was, and when it was seen.
struct Heard {
    sign: String,
    at: Instant,
}

struct NodeLifecycle {
    client: Client,
    recorder: Recorder,
    nodes: Cache<Node>,
    leases: Cache<Lease>,
    pods: Cache<Pod>,
    heard: Arc<Mutex<HashMap<String, Heard>>>,
    limits: Mutex<Limits>,
    grace: Duration,
}

pub fn new(context: &Context) -> Box<dyn Controller> {
    Box::new(NodeLifecycle {
        client: context.client.clone(),
        recorder: context.recorder.clone(),
        nodes: context.caches.of(),
        leases: context.caches.of(),
        pods: context.caches.of(),
        heard: Arc::default(),
        limits: Mutex::default(),
        grace: context.config.node_grace.unwrap_or(GRACE),
    })
}

/// Pods by the node they are on.
pub fn by_node() -> Index<Pod> {
    Index { name: "node", values: |pod| pods::node_name(pod).map(str::to_owned).into_iter().collect() }
}

fn renewed(lease: &Lease) -> String {
    let renewed = lease.spec.as_ref().and_then(|s| s.renew_time.as_ref());
    renewed.map(|t| t.0.to_string()).unwrap_or_default()
}

#[async_trait]
impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle-controller"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        wakes.primary(&self.nodes);
        wakes.reads(&self.pods);
        // How one node is changes what may be done to the others that are not ready.
        let nodes = self.nodes.clone();
        wakes.on(&self.nodes, move |change| {
            let ready = |node: Option<&Arc<Node>>| node.is_some_and(|n| plan::ready_status(n) == "True");
            if ready(change.old.as_ref()) == ready(change.new.as_ref()) {
                return Vec::new();
            }
            let unready = |n: &&Arc<Node>| plan::ready_status(n) != "True";
            nodes.list().iter().filter(unready).map(|n| Key::of(n.as_ref())).collect()
        });
        let (heard, nodes) = (self.heard.clone(), self.nodes.clone());
        wakes.on(&self.leases, move |change| {
            let Some(lease) = change.new.as_ref().filter(|_| change.key.namespace == LEASES) else { return Vec::new() };
            note(&heard, &change.key.name, "lease ", &renewed(lease));
            // Only a node that was given up needs to be looked at when it speaks again; it then writes its status too.
            let node = nodes.get("", &change.key.name);
            node.filter(|n| plan::ready_status(n) == "Unknown").map(|n| Key::of(n.as_ref())).into_iter().collect()
        });
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let Some(node) = self.nodes.at(key) else {
            self.heard.lock().remove(&key.name);
            return Ok(Requeue::Done);
        };
        let silence = self.silence(&node);
        let (was_ready, is_new) = (plan::ready_status(&node) == "True", plan::ready_status(&node).is_empty());
        let grace = if is_new { START_GRACE.max(self.grace) } else { self.grace };
        let (now, mut node) = (crate::time::now(), node);
        if silence >= grace
            && let Some(conditions) = plan::silenced(&node, now)
        {
            let api: Api<Node> = Api::all(self.client.clone());
            node = Arc::new(
                apply::status(&api, node.as_ref(), |fresh| {
                    fresh.status.get_or_insert_default().conditions = Some(conditions);
                })
                .await?,
            );
            if was_ready {
                let message = format!("Node {} status is now: NodeNotReady", key.name);
                self.recorder.event(&node.object_ref(&()), Normal, "NodeNotReady", message);
            }
        }
        let (evict, pause) = self.may_evict(&node);
        if let Some(taints) = plan::taints(&node, evict, now) {
            self.write_taints(&node, taints).await?;
        }
        let status = plan::ready_status(&node);
        if !status.is_empty() && status != "True" {
            self.mark_pods(&key.name, now).await?;
        }
        // While the node speaks, look again when its grace would end.
        let grace_end = Some(grace.saturating_sub(silence)).filter(|w| !w.is_zero()).map(|w| w + MARGIN);
        let next = [grace_end, pause].into_iter().flatten().min();
        Ok(next.map_or(Requeue::Done, Requeue::After))
    }
}

/// Note a sign of life if it is a new one.
fn note(heard: &Mutex<HashMap<String, Heard>>, node: &str, kind: &str, sign: &str) {
    let (mut heard, sign) = (heard.lock(), format!("{kind}{sign}"));
    match heard.get_mut(node) {
        Some(known) if known.sign == sign => {}
        _ => drop(heard.insert(node.to_owned(), Heard { sign, at: Instant::now() })),
    }
}

impl NodeLifecycle {
    /// How long the node has said nothing.
    fn silence(&self, node: &Node) -> Duration {
        let name = node.metadata.name.as_deref().unwrap_or("");
        if self.leases.get(LEASES, name).is_none() {
            // Without a Lease (not yet, or a kubelet that has none) the status is the heartbeat.
            let conditions = node.status.as_ref().map(|s| &s.conditions);
            let ready = conditions.and_then(|c| conditions::get(c, "Ready"));
            let beat = ready.filter(|c| c.status != "Unknown").and_then(|c| c.last_heartbeat_time.as_ref());
            note(&self.heard, name, "status ", &beat.map(|t| t.0.to_string()).unwrap_or_default());
        }
        let mut heard = self.heard.lock();
        let fresh = || Heard { sign: String::new(), at: Instant::now() };
        heard.entry(name.to_owned()).or_insert_with(fresh).at.elapsed()
    }

    /// Whether pods may be driven from this node now; if not yet, when to look again.
    fn may_evict(&self, node: &Node) -> (Evict, Option<Duration>) {
        let all = self.nodes.list();
        let health = Health::of(all.iter().map(Arc::as_ref));
        if health.is_cut_off() {
            return (Evict::Off, None);
        }
        if !plan::begins_eviction(node) {
            return (Evict::On, None);
        }
        match self.limits.lock().take(&zones::zone_of(node), &health, Instant::now()) {
            Ok(()) => (Evict::On, None),
            Err(wait) => (Evict::Hold, Some(wait.unwrap_or(ZONE_PAUSE))),
        }
    }

    async fn write_taints(&self, node: &Node, taints: Vec<k8s_openapi::api::core::v1::Taint>) -> anyhow::Result<()> {
        let api: Api<Node> = Api::all(self.client.clone());
        let meta = json!({"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version});
        let change = json!({"metadata": meta, "spec": {"taints": taints}});
        let name = node.metadata.name.as_deref().unwrap_or("");
        api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
        Ok(())
    }

    /// Pods of a node that is not ready cannot be relied on: they leave their Services.
    async fn mark_pods(&self, node: &str, now: Timestamp) -> anyhow::Result<()> {
        for pod in self.pods.by(&by_node(), node).iter().filter(|p| pods::is_ready(p) && !pods::is_finished(p)) {
            let key = Key::of(pod.as_ref());
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
            let mut condition = PodCondition::new("Ready", "False", "", "", now);
            condition.observed_generation = pod.metadata.generation;
            let change = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
            match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(change)).await {
                Err(error) if !apply::is_not_found(&error) => return Err(error.into()),
                _ => self.recorder.event(&pod.object_ref(&()), Warning, "NodeNotReady", "Node is not ready"),
            }
        }
        Ok(())
    }
}
