//! The scheduler: watches pods without a node, decides one after the other, binds many at a time.
//!
//! One task owns the picture of the cluster and the queue; a decision changes the picture at once (the pod is assumed
//! to be there), the binding goes to the server meanwhile. Caches feed the picture change by change.

mod cluster;
mod cycle;
mod plugins;
mod queue;
mod resources;
#[cfg(test)]
mod testing;

use super::{Context, apply, conditions, pods};
use crate::cache::{Change, Changes, Key, Notice};
use crate::events::{Normal, Warning};
use cluster::{Cluster, PodInfo};
use cycle::{Decision, Diagnosis};
use k8s_openapi::api::core::v1::{Binding, Namespace, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use plugins::Event;
pub use plugins::taints::toleration_matches;
use queue::Queue;
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

/// The name pods ask for in `spec.schedulerName`.
const NAME: &str = "default-scheduler";
/// Bindings under way; at most so many pods are assumed. When full, deciding pauses.
const BINDINGS: usize = 128;
/// Decisions in a row before news are read again.
const ROUND: usize = 32;

/// The end of a binding: the pod and what the server said.
type Bound = (Arc<PodInfo>, String, Result<(), kube::Error>);

struct Scheduler {
    context: Context,
    cluster: Cluster,
    queue: Queue,
    /// Where the search for nodes goes on.
    from: usize,
    under_way: HashSet<String>,
    ends: mpsc::Sender<Bound>,
}

/// Run until the group ends.
pub async fn run(context: Context) {
    let (pods, nodes, namespaces) =
        (context.caches.of::<Pod>(), context.caches.of::<Node>(), context.caches.of::<Namespace>());
    let (mut pod_news, mut node_news, mut namespace_news) =
        (pods.subscribe(), nodes.subscribe(), namespaces.subscribe());
    futures::join!(pods.synced(), nodes.synced(), namespaces.synced());
    let (ends, mut bound) = mpsc::channel(BINDINGS);
    let (cluster, queue) = (Cluster::default(), Queue::default());
    let mut scheduler = Scheduler { context, cluster, queue, from: 0, under_way: HashSet::new(), ends };
    scheduler.look_at_everything(&nodes.list(), &pods.list(), &namespaces.list());
    loop {
        if scheduler.round() {
            // Read what came meanwhile, without waiting for more.
            tokio::task::yield_now().await;
        }
        let busy = scheduler.can_go_on();
        let due = scheduler.queue.next_due().unwrap_or_else(far);
        tokio::select! {
            biased;
            Some((pod, node, outcome)) = bound.recv() => scheduler.settle(pod, node, outcome),
            notice = node_news.next() => match notice {
                Some(Notice::Change(change)) => scheduler.node_changed(change),
                Some(Notice::Resync) => scheduler.look_at_everything(&nodes.list(), &pods.list(), &namespaces.list()),
                None => return,
            },
            notice = pod_news.next() => match notice {
                Some(Notice::Change(change)) => {
                    scheduler.pod_changed(change);
                    scheduler.drain(&mut pod_news);
                }
                Some(Notice::Resync) => scheduler.look_at_everything(&nodes.list(), &pods.list(), &namespaces.list()),
                None => return,
            },
            notice = namespace_news.next() => match notice {
                Some(Notice::Change(change)) => scheduler.namespace_changed(&change.key.name, change.new.as_deref()),
                Some(Notice::Resync) => scheduler.look_at_everything(&nodes.list(), &pods.list(), &namespaces.list()),
                None => return,
            },
            () = std::future::ready(()), if busy => {}
            () = tokio::time::sleep_until(due), if !busy => {}
        }
    }
}

/// A time that does not come while anybody waits for it.
fn far() -> Instant {
    Instant::now() + std::time::Duration::from_secs(3600)
}

/// Does this scheduler have to find a node for the pod?
fn is_waiting(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    let ours = spec.scheduler_name.as_deref().unwrap_or(NAME) == NAME;
    ours && !gated && pods::node_name(pod).is_none() && pods::is_active(pod)
}

impl Scheduler {
    fn can_go_on(&self) -> bool {
        self.queue.has_ready() && self.under_way.len() < BINDINGS
    }

    /// Some decisions; were there any?
    fn round(&mut self) -> bool {
        for n in 0..ROUND {
            let next = (self.under_way.len() < BINDINGS).then(|| self.queue.pop(Instant::now())).flatten();
            let Some(pod) = next else { return n > 0 };
            self.decide(pod);
        }
        true
    }

    fn decide(&mut self, pod: Arc<PodInfo>) {
        match cycle::decide(&pod, &self.cluster, &mut self.from) {
            Decision::Node(node) => {
                self.cluster.place(pod.clone(), &node);
                self.under_way.insert(pod.uid().to_owned());
                let (client, ends) = (self.context.client.clone(), self.ends.clone());
                self.context.group.spawn("bind", async move {
                    let outcome = bind(&client, &pod.pod, &node).await;
                    // The channel ends with the scheduler; then nobody wants to know.
                    let _ = ends.send((pod, node, outcome)).await;
                });
            }
            Decision::Unfit(diagnosis) => self.park(&pod, &diagnosis),
        }
    }

    fn park(&mut self, pod: &PodInfo, diagnosis: &Diagnosis) {
        debug!(uid = pod.uid(), plugins = ?diagnosis.plugins(), "no node fits");
        self.queue.unfit(pod.uid(), diagnosis.refused_by, Instant::now());
        self.tell_failure(pod, "Unschedulable", diagnosis.message());
    }

    /// Event and condition of a pod that found no place.
    fn tell_failure(&self, pod: &PodInfo, reason: &'static str, message: String) {
        self.context.recorder.event(&pod.pod.object_ref(&()), Warning, "FailedScheduling", message.as_str());
        let held = pod.pod.status.as_ref().and_then(|s| conditions::get(&s.conditions, "PodScheduled"));
        let told = held.is_some_and(|c| {
            c.status == "False" && c.reason.as_deref() == Some(reason) && c.message.as_ref() == Some(&message)
        });
        if told {
            return;
        }
        let since = held.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone());
        let (client, pod) = (self.context.client.clone(), pod.pod.clone());
        self.context.group.spawn("unschedulable", async move {
            let condition = json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message,
                "lastTransitionTime": since.unwrap_or(Time(crate::time::now())), "lastProbeTime": null,
                "observedGeneration": pod.metadata.generation});
            let change = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
            let key = Key::of(pod.as_ref());
            let api: Api<Pod> = Api::namespaced(client, &key.namespace);
            if let Err(error) = api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(change)).await {
                debug!(pod = %key, %error, "condition not written");
            }
        });
    }

    fn settle(&mut self, pod: Arc<PodInfo>, node: String, outcome: Result<(), kube::Error>) {
        let uid = pod.uid();
        self.under_way.remove(uid);
        match outcome {
            Ok(()) => {
                self.queue.remove(uid);
                let key = Key::of(pod.pod.as_ref());
                let message = format!("Successfully assigned {key} to {node}");
                self.context.recorder.event(&pod.pod.object_ref(&()), Normal, "Scheduled", message);
            }
            Err(error) => {
                // Whatever the server has will be, or was, told by the watch; only our assumption ends.
                self.cluster.displace(uid);
                let key = Key::of(pod.pod.as_ref());
                if let Some(held) = self.context.caches.of::<Pod>().at(&key) {
                    self.cluster.observe(&held);
                }
                if !apply::is_not_found(&error) && !apply::is_conflict(&error) {
                    self.tell_failure(&pod, "SchedulerError", format!("binding rejected: {}", apply::message(&error)));
                }
                self.queue.failed(uid);
                self.queue.happened(Event::PodRemoved);
            }
        }
    }

    fn drain(&mut self, news: &mut Changes<Pod>) {
        while let Some(change) = news.next_change_now() {
            self.pod_changed(change);
        }
    }

    fn pod_changed(&mut self, change: Change<Pod>) {
        let replaced = |old: &Arc<Pod>| change.new.as_ref().is_none_or(|new| new.metadata.uid != old.metadata.uid);
        if let Some(old) = change.old.as_ref().filter(|old| replaced(old)) {
            self.forget(old.metadata.uid.as_deref().unwrap_or(""));
        }
        let Some(pod) = change.new else { return };
        let uid = pod.metadata.uid.as_deref().unwrap_or("");
        if is_waiting(&pod) {
            if !self.under_way.contains(uid) || self.queue.contains(uid) {
                self.queue.add(Arc::new(PodInfo::new(pod)));
            }
            return;
        }
        self.queue.remove(uid);
        let (before, labels) = (self.cluster.place_of(uid).is_some(), change.old.map(|o| o.metadata.labels.clone()));
        self.cluster.observe(&pod);
        match (before, self.cluster.place_of(uid).is_some()) {
            (true, false) => self.queue.happened(Event::PodRemoved),
            (false, true) => self.queue.happened(Event::PodPlaced),
            (true, true) if labels != Some(pod.metadata.labels.clone()) => self.queue.happened(Event::PodPlaced),
            _ => {}
        }
    }

    fn forget(&mut self, uid: &str) {
        self.queue.remove(uid);
        if self.cluster.displace(uid) {
            self.queue.happened(Event::PodRemoved);
        }
    }

    fn node_changed(&mut self, change: Change<Node>) {
        let Some(node) = change.new else { return self.cluster.remove_node(&change.key.name) };
        let event = match &change.old {
            None => Some(Event::NodeAdded),
            Some(old) if matters(old, &node) => Some(Event::NodeChanged),
            Some(_) => None,
        };
        self.cluster.set_node(node);
        event.into_iter().for_each(|event| self.queue.happened(event));
    }

    fn namespace_changed(&mut self, name: &str, namespace: Option<&Namespace>) {
        match namespace {
            Some(n) => {
                let labels = n.metadata.labels.clone().unwrap_or_default();
                self.cluster.namespaces.insert(name.to_owned(), labels);
            }
            None => drop(self.cluster.namespaces.remove(name)),
        }
    }

    /// Start the picture anew: at start, and when changes were missed.
    fn look_at_everything(&mut self, nodes: &[Arc<Node>], pods: &[Arc<Pod>], namespaces: &[Arc<Namespace>]) {
        let known: HashSet<&str> = nodes.iter().filter_map(|n| n.metadata.name.as_deref()).collect();
        let gone = self.cluster.nodes().iter().map(|n| n.name().to_owned()).filter(|n| !known.contains(n.as_str()));
        gone.collect::<Vec<_>>().iter().for_each(|name| self.cluster.remove_node(name));
        nodes.iter().for_each(|node| self.cluster.set_node(node.clone()));
        self.cluster.namespaces.clear();
        for namespace in namespaces {
            self.namespace_changed(namespace.metadata.name.as_deref().unwrap_or(""), Some(namespace));
        }
        let live: HashSet<&str> = pods.iter().filter_map(|p| p.metadata.uid.as_deref()).collect();
        let stale = self.cluster.placed().chain(self.queue.waiting()).filter(|uid| !live.contains(uid.as_str()));
        stale.cloned().collect::<Vec<_>>().iter().for_each(|uid| self.forget(uid));
        for pod in pods {
            self.pod_changed(Change { key: Key::default(), old: None, new: Some(pod.clone()) });
        }
        self.queue.happened(Event::NodeAdded);
    }
}

/// Could the change of a node let a pod fit that did not?
fn matters(old: &Node, new: &Node) -> bool {
    let allocatable = |n: &Node| n.status.as_ref().and_then(|s| s.allocatable.clone());
    old.spec != new.spec || old.metadata.labels != new.metadata.labels || allocatable(old) != allocatable(new)
}

async fn bind(client: &Client, pod: &Pod, node: &str) -> Result<(), kube::Error> {
    let key = Key::of(pod);
    let api: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
    let metadata = ObjectMeta {
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        uid: pod.metadata.uid.clone(),
        ..Default::default()
    };
    let target = ObjectReference { kind: Some("Node".into()), name: Some(node.to_owned()), ..Default::default() };
    let binding = Binding { metadata, target };
    let _: Status = api.create_subresource("binding", &key.name, &PostParams::default(), &binding).await?;
    Ok(())
}
