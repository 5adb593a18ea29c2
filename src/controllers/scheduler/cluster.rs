//! The scheduler's picture of the cluster: nodes with what is used on them, kept up to date pod by pod.

use super::resources::{Amounts, requests, scored_requests};
use crate::controllers::labels::Labels;
use crate::controllers::pods;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A pod with what plugins ask of it again and again.
#[derive(Debug)]
pub struct PodInfo {
    pub pod: Arc<Pod>,
    pub requests: Amounts,
    pub scored: Amounts,
    pub ports: Vec<HostPort>,
}

/// A port of the node that a pod wants: (address, protocol, number).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub address: String,
    pub protocol: String,
    pub number: i32,
}

impl HostPort {
    pub fn clashes(&self, other: &HostPort) -> bool {
        let any = |address: &str| matches!(address, "" | "0.0.0.0" | "::");
        self.number == other.number
            && self.protocol == other.protocol
            && (any(&self.address) || any(&other.address) || self.address == other.address)
    }
}

impl PodInfo {
    pub fn new(pod: Arc<Pod>) -> Self {
        PodInfo { requests: requests(&pod), scored: scored_requests(&pod), ports: host_ports(&pod), pod }
    }

    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or("")
    }

    pub fn labels(&self) -> Option<&Labels> {
        self.pod.metadata.labels.as_ref()
    }

    pub fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    pub fn priority(&self) -> i32 {
        self.spec().and_then(|s| s.priority).unwrap_or(0)
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let host = spec.host_network == Some(true);
    let ports = ports.filter_map(|port| {
        let number = port.host_port.filter(|n| *n > 0).or(host.then_some(port.container_port))?;
        Some(HostPort {
            address: port.host_ip.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
            number,
        })
    });
    ports.collect()
}

/// A node and its pods.
#[derive(Debug)]
pub struct NodeInfo {
    pub node: Arc<Node>,
    pub allocatable: Amounts,
    pub used: Amounts,
    /// As [`PodInfo::scored`].
    pub used_scored: Amounts,
    pub ports: Vec<HostPort>,
    /// By UID.
    pub pods: BTreeMap<String, Arc<PodInfo>>,
}

impl NodeInfo {
    fn new(node: Arc<Node>) -> Self {
        let allocatable = Amounts::parse(node.status.as_ref().and_then(|s| s.allocatable.as_ref()));
        NodeInfo {
            node,
            allocatable,
            used: Amounts::default(),
            used_scored: Amounts::default(),
            ports: Vec::new(),
            pods: BTreeMap::new(),
        }
    }

    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or("")
    }

    pub fn labels(&self) -> Option<&Labels> {
        self.node.metadata.labels.as_ref()
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels()?.get(key).map(String::as_str)
    }

    fn add(&mut self, pod: Arc<PodInfo>) {
        self.used.add(&pod.requests);
        self.used_scored.add(&pod.scored);
        self.ports.extend(pod.ports.iter().cloned());
        self.pods.insert(pod.uid().to_owned(), pod);
    }

    fn remove(&mut self, uid: &str) {
        let Some(pod) = self.pods.remove(uid) else { return };
        self.used.subtract(&pod.requests);
        self.used_scored.subtract(&pod.scored);
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|held| held == port) {
                self.ports.swap_remove(at);
            }
        }
    }
}

/// All nodes, and where every pod that takes room is.
#[derive(Debug, Default)]
pub struct Cluster {
    nodes: Vec<NodeInfo>,
    at: HashMap<String, usize>,
    /// UID → node name; also for pods whose node is not known (yet).
    places: HashMap<String, (String, Arc<PodInfo>)>,
    /// Namespace labels, for selectors over namespaces.
    pub namespaces: HashMap<String, Labels>,
    /// Pods that have required anti-affinity, and all pods with any affinity: plugins skip work when zero.
    pub with_affinity: usize,
}

fn has_affinity(pod: &PodInfo) -> bool {
    let affinity = pod.spec().and_then(|s| s.affinity.as_ref());
    affinity.is_some_and(|a| a.pod_affinity.is_some() || a.pod_anti_affinity.is_some())
}

impl Cluster {
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    #[cfg(test)]
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.at.get(name).map(|at| &self.nodes[*at])
    }

    /// Take or replace a node; pods known to be on it are counted.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        if let Some(at) = self.at.get(&name) {
            let held = &mut self.nodes[*at];
            held.allocatable = Amounts::parse(node.status.as_ref().and_then(|s| s.allocatable.as_ref()));
            held.node = node;
            return;
        }
        let mut info = NodeInfo::new(node);
        let here = self.places.values().filter(|(place, _)| *place == name);
        here.for_each(|(_, pod)| info.add(pod.clone()));
        self.at.insert(name, self.nodes.len());
        self.nodes.push(info);
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(at) = self.at.remove(name) else { return };
        self.nodes.swap_remove(at);
        if let Some(moved) = self.nodes.get(at) {
            self.at.insert(moved.name().to_owned(), at);
        }
    }

    /// Count a pod on a node: bound, or about to be.
    pub fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        let uid = pod.uid().to_owned();
        if let Some((place, held)) = self.places.get(&uid) {
            if place == node && Arc::ptr_eq(&held.pod, &pod.pod) {
                return;
            }
            self.displace(&uid);
        }
        self.with_affinity += usize::from(has_affinity(&pod));
        if let Some(at) = self.at.get(node) {
            self.nodes[*at].add(pod.clone());
        }
        self.places.insert(uid, (node.to_owned(), pod));
    }

    /// Count a pod no longer. Was it counted?
    pub fn displace(&mut self, uid: &str) -> bool {
        let Some((place, pod)) = self.places.remove(uid) else { return false };
        self.with_affinity -= usize::from(has_affinity(&pod));
        if let Some(at) = self.at.get(&place) {
            self.nodes[*at].remove(uid);
        }
        true
    }

    /// Where a pod is counted.
    pub fn place_of(&self, uid: &str) -> Option<&str> {
        self.places.get(uid).map(|(node, _)| node.as_str())
    }

    /// UIDs of all pods counted.
    pub fn placed(&self) -> impl Iterator<Item = &String> {
        self.places.keys()
    }

    /// Bring one pod as the server has it into the picture. Pods that finished take no room.
    pub fn observe(&mut self, pod: &Arc<Pod>) {
        match pods::node_name(pod) {
            Some(node) if !pods::is_finished(pod) => {
                let node = node.to_owned();
                self.place(Arc::new(PodInfo::new(pod.clone())), &node);
            }
            // Not bound in the server's eyes: an assumption stays until its binding is decided.
            None => {}
            Some(_) => {
                self.displace(pod.metadata.uid.as_deref().unwrap_or(""));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::scheduler::testing::{node, pod};
    use serde_json::json;

    #[test]
    fn pods_come_and_go_with_what_they_use() {
        let mut cluster = Cluster::default();
        let one = Arc::new(pod(
            "a",
            json!({"nodeName": "n1", "containers": [
            {"name": "c", "resources": {"requests": {"cpu": "1"}}, "ports": [{"containerPort": 80, "hostPort": 80}]}]}),
        ));
        cluster.observe(&one);
        cluster.set_node(Arc::new(node("n1", json!({}))));
        cluster.set_node(Arc::new(node("n2", json!({}))));
        assert_eq!(cluster.node("n1").unwrap().used.milli_cpu, 1000, "a pod seen before its node");
        cluster.observe(&one);
        assert_eq!(cluster.node("n1").unwrap().used.milli_cpu, 1000, "twice is once");
        cluster.place(Arc::new(PodInfo::new(one.clone())), "n2");
        assert_eq!(cluster.node("n1").unwrap().used, Amounts::default());
        assert_eq!(cluster.node("n2").unwrap().ports.len(), 1);
        let mut done = one.as_ref().clone();
        done.status.get_or_insert_default().phase = Some("Succeeded".into());
        cluster.observe(&Arc::new(done));
        assert_eq!((cluster.node("n2").unwrap().used.milli_cpu, cluster.node("n2").unwrap().ports.len()), (0, 0));
        cluster.remove_node("n1");
        assert_eq!(cluster.node("n2").unwrap().name(), "n2");
    }

    #[test]
    fn ports_clash_on_the_same_address_or_any() {
        let port = |address: &str, number| HostPort { address: address.into(), protocol: "TCP".into(), number };
        let cases = [
            (port("", 80), port("127.0.0.1", 80), true),
            (port("10.0.0.1", 80), port("127.0.0.1", 80), false),
            (port("10.0.0.1", 80), port("10.0.0.1", 80), true),
            (port("", 80), port("", 81), false),
        ];
        for (a, b, expected) in cases {
            assert_eq!(a.clashes(&b), expected, "{a:?} {b:?}");
        }
        let udp = HostPort { protocol: "UDP".into(), ..port("", 80) };
        assert!(!udp.clashes(&port("", 80)));
    }
}
