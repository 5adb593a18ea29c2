//! Which node may see which object: what pods bound to a node refer to, and what those refer to in turn.
//!
//! Holds facts, not objects: per pod its node, uid and references. Also what token checks ask (uids).

use super::follow::{Followed, Key, Sink, follow};
use super::references::{Reference, claim_of_volume, pod_references, volume_secrets};
use crate::object::{Object, ObjectExt};
use crate::server::registry::Registry;
use crate::store::{KeyValue, Revision};
use crate::task::Group;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;

/// The objects that a node can be related to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Secret,
    ConfigMap,
    Claim,
    ResourceClaim,
    ServiceAccount,
}

/// What is known of a pod.
#[derive(Clone, Debug, Default)]
pub struct PodFacts {
    pub uid: String,
    /// Empty while unscheduled.
    pub node: String,
    pub service_account: String,
    /// Unix seconds after which the pod's tokens are void; None: it is not being deleted.
    pub deletion: Option<i64>,
    created: Revision,
    references: Vec<Reference>,
}

/// What is known of a PersistentVolume.
#[derive(Default)]
struct VolumeFacts {
    claim: Option<Key>,
    secrets: Vec<Key>,
}

/// The index. Lock order: there is one lock.
#[derive(Default)]
pub struct Graph(RwLock<Tables>);

#[derive(Default)]
struct Tables {
    pods: HashMap<Key, PodFacts>,
    /// Referred object → node → number of its pods that refer to it.
    referred: HashMap<(Target, Key), HashMap<String, u32>>,
    volumes: HashMap<String, VolumeFacts>,
    /// Secret → volumes that need it.
    volume_secrets: HashMap<Key, Vec<String>>,
    /// VolumeAttachment, ResourceSlice → node.
    attachments: HashMap<String, String>,
    slices: HashMap<String, String>,
    /// ServiceAccount, Node → uid.
    service_accounts: HashMap<Key, String>,
    nodes: HashMap<String, String>,
}

/// A graph with the tasks that feed it.
pub struct LiveGraph {
    pub graph: Arc<Graph>,
    followed: Vec<Followed>,
}

impl LiveGraph {
    pub fn start(registry: &Arc<Registry>, group: &Group) -> Self {
        let graph = Arc::new(Graph::default());
        let kinds = [
            ("", "pods", Part::Pods),
            ("", "persistentvolumes", Part::Volumes),
            ("", "serviceaccounts", Part::ServiceAccounts),
            ("", "nodes", Part::Nodes),
            ("storage.k8s.io", "volumeattachments", Part::Attachments),
            ("resource.k8s.io", "resourceslices", Part::Slices),
        ];
        let start = |(api_group, resource, part): (&str, &str, Part)| {
            let kind = registry.kind_of(api_group, resource)?;
            Some(follow(registry, kind, Arc::new(Feed { graph: graph.clone(), part }), group))
        };
        let followed = kinds.into_iter().filter_map(start).collect();
        LiveGraph { graph, followed }
    }

    pub async fn synced(&self) {
        for kind in &self.followed {
            kind.synced().await;
        }
    }
}

impl Graph {
    pub fn pod(&self, namespace: &str, name: &str) -> Option<PodFacts> {
        self.0.read().pods.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub fn service_account_uid(&self, namespace: &str, name: &str) -> Option<String> {
        self.0.read().service_accounts.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub fn node_uid(&self, name: &str) -> Option<String> {
        self.0.read().nodes.get(name).cloned()
    }

    pub fn pod_is_on(&self, node: &str, namespace: &str, name: &str) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        self.0.read().pods.get(&key).is_some_and(|p| p.node == node)
    }

    /// Whether a pod on the node refers to the object, directly or (secrets) through a volume.
    pub fn is_related(&self, node: &str, target: Target, namespace: &str, name: &str) -> bool {
        let tables = self.0.read();
        let key = (namespace.to_owned(), name.to_owned());
        if target == Target::Secret {
            let volumes = tables.volume_secrets.get(&key).map_or(&[][..], Vec::as_slice);
            if volumes.iter().any(|v| tables.volume_is_related(node, v)) {
                return true;
            }
        }
        tables.refers(node, target, key)
    }

    /// Whether a pod on the node uses the claim that a PersistentVolume is bound to.
    pub fn volume_is_related(&self, node: &str, volume: &str) -> bool {
        self.0.read().volume_is_related(node, volume)
    }

    pub fn attachment_is_on(&self, node: &str, name: &str) -> bool {
        self.0.read().attachments.get(name).is_some_and(|n| n == node)
    }

    pub fn slice_is_on(&self, node: &str, name: &str) -> bool {
        self.0.read().slices.get(name).is_some_and(|n| n == node)
    }

    pub fn put_pod(&self, key: &Key, created: Revision, pod: &Object) {
        let facts = PodFacts {
            uid: pod.uid().to_owned(),
            node: pod.str_at(&["spec", "nodeName"]).to_owned(),
            service_account: pod.str_at(&["spec", "serviceAccountName"]).to_owned(),
            deletion: deletion_time(pod),
            created,
            references: pod_references(pod),
        };
        let mut tables = self.0.write();
        tables.remove_pod(key);
        if !facts.node.is_empty() {
            for (target, name) in &facts.references {
                let referred = (*target, (key.0.clone(), name.clone()));
                *tables.referred.entry(referred).or_default().entry(facts.node.clone()).or_default() += 1;
            }
        }
        tables.pods.insert(key.clone(), facts);
    }

    pub fn put_volume(&self, name: &str, volume: &Object) {
        let mut tables = self.0.write();
        tables.remove_volume(name);
        let facts = VolumeFacts { claim: claim_of_volume(volume), secrets: volume_secrets(volume) };
        for secret in &facts.secrets {
            tables.volume_secrets.entry(secret.clone()).or_default().push(name.to_owned());
        }
        tables.volumes.insert(name.to_owned(), facts);
    }

    /// References of a bound pod never change (its spec is immutable there), so its status updates need no parsing.
    fn is_settled(&self, key: &Key, kv: &KeyValue) -> bool {
        let settled = |p: &PodFacts| p.created == kv.create_revision && !p.node.is_empty() && p.deletion.is_none();
        let is_deleting = || std::str::from_utf8(&kv.value).is_ok_and(|text| text.contains("\"deletionTimestamp\""));
        self.0.read().pods.get(key).is_some_and(settled) && !is_deleting()
    }
}

impl Tables {
    fn refers(&self, node: &str, target: Target, key: Key) -> bool {
        self.referred.get(&(target, key)).is_some_and(|nodes| nodes.contains_key(node))
    }

    fn volume_is_related(&self, node: &str, volume: &str) -> bool {
        let claim = self.volumes.get(volume).and_then(|v| v.claim.clone());
        claim.is_some_and(|claim| self.refers(node, Target::Claim, claim))
    }

    fn remove_pod(&mut self, key: &Key) {
        let Some(facts) = self.pods.remove(key) else { return };
        if facts.node.is_empty() {
            return;
        }
        for (target, name) in facts.references {
            let referred = (target, (key.0.clone(), name));
            let Some(nodes) = self.referred.get_mut(&referred) else { continue };
            if let Some(count) = nodes.get_mut(&facts.node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&facts.node);
                }
            }
            if nodes.is_empty() {
                self.referred.remove(&referred);
            }
        }
    }

    fn remove_volume(&mut self, name: &str) {
        let Some(facts) = self.volumes.remove(name) else { return };
        for secret in facts.secrets {
            if let Some(volumes) = self.volume_secrets.get_mut(&secret) {
                volumes.retain(|v| v != name);
                if volumes.is_empty() {
                    self.volume_secrets.remove(&secret);
                }
            }
        }
    }
}

/// Unix seconds of `metadata.deletionTimestamp`.
pub fn deletion_time(object: &Object) -> Option<i64> {
    crate::time::parse_seconds(object.str_at(&["metadata", "deletionTimestamp"]))
}

/// Which kind a feed follows.
#[derive(Clone, Copy)]
enum Part {
    Pods,
    Volumes,
    ServiceAccounts,
    Nodes,
    Attachments,
    Slices,
}

struct Feed {
    graph: Arc<Graph>,
    part: Part,
}

impl Sink for Feed {
    fn put(&self, key: &Key, kv: &KeyValue) {
        if matches!(self.part, Part::Pods) && self.graph.is_settled(key, kv) {
            return;
        }
        let Ok(object) = serde_json::from_slice::<Object>(&kv.value) else { return };
        let node = |path: &[&str]| object.str_at(path).to_owned();
        match self.part {
            Part::Pods => self.graph.put_pod(key, kv.create_revision, &object),
            Part::Volumes => self.graph.put_volume(&key.1, &object),
            other => {
                let mut tables = self.graph.0.write();
                match other {
                    // Whether a token of one that is being deleted still counts, only the store tells.
                    Part::ServiceAccounts if object.is_deleting() => drop(tables.service_accounts.remove(key)),
                    Part::ServiceAccounts => drop(tables.service_accounts.insert(key.clone(), object.uid().to_owned())),
                    Part::Nodes => drop(tables.nodes.insert(key.1.clone(), object.uid().to_owned())),
                    Part::Attachments => drop(tables.attachments.insert(key.1.clone(), node(&["spec", "nodeName"]))),
                    _ => drop(tables.slices.insert(key.1.clone(), node(&["spec", "nodeName"]))),
                }
            }
        }
    }

    fn delete(&self, key: &Key) {
        let mut tables = self.graph.0.write();
        match self.part {
            Part::Pods => tables.remove_pod(key),
            Part::Volumes => tables.remove_volume(&key.1),
            Part::ServiceAccounts => drop(tables.service_accounts.remove(key)),
            Part::Nodes => drop(tables.nodes.remove(&key.1)),
            Part::Attachments => drop(tables.attachments.remove(&key.1)),
            Part::Slices => drop(tables.slices.remove(&key.1)),
        }
    }

    fn keys(&self) -> Vec<Key> {
        let tables = self.graph.0.read();
        let cluster = |name: &String| (String::new(), name.clone());
        match self.part {
            Part::Pods => tables.pods.keys().cloned().collect(),
            Part::Volumes => tables.volumes.keys().map(cluster).collect(),
            Part::ServiceAccounts => tables.service_accounts.keys().cloned().collect(),
            Part::Nodes => tables.nodes.keys().map(cluster).collect(),
            Part::Attachments => tables.attachments.keys().map(cluster).collect(),
            Part::Slices => tables.slices.keys().map(cluster).collect(),
        }
    }
}
