//! One scheduling decision: filter, score, choose. Pure but for the die that breaks ties.

use super::cluster::{Cluster, NodeInfo, PodInfo};
use super::plugins::{ALL, Filter, Refusal, Scale, Score};
use std::collections::BTreeMap;

/// Clusters up to this size are searched whole.
const SEARCH_ALL: usize = 100;
/// Larger ones until a part of the nodes was found to fit: 50 % minus one for every 125 nodes, at least this.
const LEAST_PERCENT: usize = 5;

/// Plugins by their position in [`ALL`].
pub type PluginSet = u32;

#[derive(Debug)]
pub enum Decision {
    Node(String),
    Unfit(Diagnosis),
}

/// Why no node fits.
#[derive(Debug, Default)]
pub struct Diagnosis {
    pub nodes: usize,
    pub reasons: BTreeMap<String, usize>,
    pub refused_by: PluginSet,
    /// Nodes that might fit without some of their pods.
    pub preemptable: Vec<String>,
}

impl Diagnosis {
    fn note(&mut self, plugin: usize, node: &NodeInfo, refusal: Refusal) {
        self.refused_by |= 1 << plugin;
        if refusal.preemptable {
            self.preemptable.push(node.name().to_owned());
        }
        for reason in refusal.reasons {
            match self.reasons.get_mut(reason.as_ref()) {
                Some(count) => *count += 1,
                None => drop(self.reasons.insert(reason.into_owned(), 1)),
            }
        }
    }

    /// Upstream's names of the plugins that refused a node.
    pub fn plugins(&self) -> Vec<&'static str> {
        let each = ALL.iter().enumerate();
        each.filter(|(at, _)| self.refused_by & (1 << at) != 0).map(|(_, plugin)| plugin.name()).collect()
    }

    /// As `kubectl describe pod` shows it: `0/2 nodes are available: 2 Insufficient cpu.`
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        format!("0/{} nodes are available: {}.", self.nodes, histogram(&self.reasons))
    }
}

/// `1 Insufficient cpu, 2 Too many pods`, sorted as text, as upstream does.
pub fn histogram(reasons: &BTreeMap<String, usize>) -> String {
    let mut parts: Vec<_> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    parts.join(", ")
}

/// How many fitting nodes are enough.
fn enough(nodes: usize) -> usize {
    if nodes <= SEARCH_ALL {
        return nodes;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(LEAST_PERCENT);
    (nodes * percent / 100).max(SEARCH_ALL)
}

pub fn filters<'a>(pod: &'a PodInfo, cluster: &'a Cluster) -> Vec<(usize, Filter<'a>)> {
    let each = ALL.iter().enumerate();
    each.filter_map(|(at, plugin)| plugin.filter(pod, cluster).map(|filter| (at, filter))).collect()
}

/// The first refusal, with the plugin's position.
pub fn refused(filters: &[(usize, Filter<'_>)], node: &NodeInfo) -> Option<(usize, Refusal)> {
    filters.iter().find_map(|(at, filter)| filter(node).err().map(|refusal| (*at, refusal)))
}

/// Choose a node. `from` is where the search starts and is moved on, so that large clusters are used evenly.
pub fn decide(pod: &PodInfo, cluster: &Cluster, from: &mut usize) -> Decision {
    let nodes = cluster.nodes();
    let filters = filters(pod, cluster);
    let wanted = enough(nodes.len());
    let mut fitting: Vec<&NodeInfo> = Vec::with_capacity(wanted);
    let mut diagnosis = Diagnosis { nodes: nodes.len(), ..Default::default() };
    let mut looked_at = 0;
    while looked_at < nodes.len() && fitting.len() < wanted {
        let node = &nodes[(*from + looked_at) % nodes.len()];
        looked_at += 1;
        match refused(&filters, node) {
            None => fitting.push(node),
            Some((plugin, refusal)) => diagnosis.note(plugin, node, refusal),
        }
    }
    *from = if nodes.is_empty() { 0 } else { (*from + looked_at) % nodes.len() };
    match fitting.as_slice() {
        [] => Decision::Unfit(diagnosis),
        [only] => Decision::Node(only.name().to_owned()),
        several => Decision::Node(best(pod, cluster, several).name().to_owned()),
    }
}

/// The node with the highest score; one of them by chance if there are several.
fn best<'a>(pod: &PodInfo, cluster: &Cluster, fitting: &[&'a NodeInfo]) -> &'a NodeInfo {
    let totals = scores(pod, cluster, fitting);
    let highest = totals.iter().copied().max().unwrap_or(0);
    let ties = totals.iter().filter(|total| **total == highest).count();
    let pick = rand::random_range(0..ties.max(1));
    let mut top = totals.iter().zip(fitting).filter(|(total, _)| **total == highest);
    top.nth(pick).map_or(fitting[0], |(_, node)| node)
}

/// Weighted sums of all plugins' scores.
pub fn scores(pod: &PodInfo, cluster: &Cluster, fitting: &[&NodeInfo]) -> Vec<i64> {
    let mut totals = vec![0; fitting.len()];
    for plugin in ALL {
        let Some(Score { points, scale }) = plugin.score(pod, cluster) else { continue };
        let mut raw: Vec<i64> = fitting.iter().map(|node| points(node)).collect();
        rescale(&mut raw, scale);
        totals.iter_mut().zip(raw).for_each(|(total, points)| *total += points * plugin.weight());
    }
    totals
}

fn rescale(points: &mut [i64], scale: Scale) {
    let highest = points.iter().copied().max().unwrap_or(0);
    let convert: Box<dyn Fn(i64) -> i64> = match scale {
        Scale::AsIs => return,
        Scale::Highest if highest == 0 => return,
        Scale::Highest => Box::new(move |p| p * 100 / highest),
        Scale::Fewest if highest == 0 => Box::new(|_| 100),
        Scale::Fewest => Box::new(move |p| 100 - p * 100 / highest),
    };
    points.iter_mut().for_each(|p| *p = convert(*p));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::scheduler::testing::{asking, node, pod};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn cluster(nodes: &[(&str, Value)]) -> Cluster {
        let mut cluster = Cluster::default();
        nodes.iter().for_each(|(name, spec)| cluster.set_node(Arc::new(node(name, spec.clone()))));
        cluster
    }

    fn info(spec: Value) -> PodInfo {
        PodInfo::new(Arc::new(pod("p", spec)))
    }

    fn message(spec: Value, cluster: &Cluster) -> String {
        match decide(&info(spec), cluster, &mut 0) {
            Decision::Unfit(diagnosis) => diagnosis.message(),
            Decision::Node(node) => panic!("fits on {node}"),
        }
    }

    #[test]
    fn refusals_read_as_users_know_them() {
        let three = cluster(&[
            ("n1", json!({})),
            ("n2", json!({"unschedulable": true})),
            ("n3", json!({"taints": [{"key": "k", "effect": "NoSchedule"}]})),
        ]);
        let two = cluster(&[("n1", json!({})), ("n2", json!({}))]);
        let big = "1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable";
        let cases = [
            (asking("100", "1Gi"), &three, format!("0/3 nodes are available: {big}.")),
            (
                asking("100", "100Gi"),
                &two,
                "0/2 nodes are available: 2 Insufficient cpu, 2 Insufficient memory.".into(),
            ),
            (
                json!({"nodeSelector": {"disk": "ssd"}}),
                &two,
                "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.".into(),
            ),
            (
                json!({"nodeName": "other"}),
                &two,
                "0/2 nodes are available: 2 node(s) didn't match the requested node name.".into(),
            ),
        ];
        for (spec, cluster, expected) in cases {
            assert_eq!(message(spec, cluster), expected);
        }
        assert_eq!(message(json!({}), &Cluster::default()), "no nodes available to schedule pods");
    }

    #[test]
    fn ports_and_pod_counts_are_limits() {
        let mut one = cluster(&[("n1", json!({}))]);
        let wants_port = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
        one.place(Arc::new(PodInfo::new(Arc::new(pod("other", wants_port.clone())))), "n1");
        let reason = "node(s) didn't have free ports for the requested pod ports";
        assert_eq!(message(wants_port, &one), format!("0/1 nodes are available: 1 {reason}."));
        for n in 0..109 {
            one.place(Arc::new(PodInfo::new(Arc::new(pod(&format!("p{n}"), json!({}))))), "n1");
        }
        assert_eq!(message(json!({}), &one), "0/1 nodes are available: 1 Too many pods.");
    }

    #[test]
    fn pods_spread_to_the_emptier_node() {
        let mut cluster = cluster(&[("n1", json!({})), ("n2", json!({})), ("n3", json!({}))]);
        let mut from = 0;
        for n in 0..6 {
            let next = PodInfo::new(Arc::new(pod(&format!("p{n}"), asking("500m", "512Mi"))));
            let Decision::Node(node) = decide(&next, &cluster, &mut from) else { panic!("fits") };
            cluster.place(Arc::new(next), &node);
        }
        let counts: Vec<_> = cluster.nodes().iter().map(|n| n.pods.len()).collect();
        assert_eq!(counts, [2, 2, 2]);
    }

    #[test]
    fn preferences_decide() {
        let soft = json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]});
        let tainted = cluster(&[("n1", soft), ("n2", json!({}))]);
        for _ in 0..8 {
            assert!(matches!(decide(&info(json!({})), &tainted, &mut 0), Decision::Node(n) if n == "n2"));
        }
        let both = cluster(&[("n1", json!({})), ("n2", json!({}))]);
        let field = json!([{"key": "metadata.name", "operator": "In", "values": ["n1"]}]);
        let preferred = json!([{"weight": 10, "preference": {"matchFields": field}}]);
        let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}});
        for _ in 0..8 {
            let chosen = decide(&info(json!({"affinity": affinity})), &both, &mut 0);
            assert!(matches!(chosen, Decision::Node(n) if n == "n1"));
        }
    }

    #[test]
    fn large_clusters_are_sampled() {
        let cases = [(1, 1), (100, 100), (101, 100), (1000, 420), (5000, 500), (20000, 1000)];
        for (nodes, expected) in cases {
            assert_eq!(enough(nodes), expected, "{nodes}");
        }
    }
}
