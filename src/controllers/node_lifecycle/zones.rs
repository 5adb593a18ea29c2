//! How fast nodes may be evicted: one bucket of evictions per zone, refilled by how well the zone is. Pure.
//!
//! | zone | rate |
//! |---|---|
//! | well: some node ready, and not more than 2 unready ones or less than 55 % | [`NORMAL_RATE`] |
//! | partly disrupted, more than [`LARGE`] nodes | [`SECONDARY_RATE`] |
//! | partly disrupted, small | none |
//! | no node ready | [`NORMAL_RATE`] (it is the zone that failed) |
//! | no node ready in any zone | none, and what was tainted is freed (it is we who are cut off) |
//!
//! The numbers are kube-controller-manager's defaults.

use super::plan::ready_status;
use k8s_openapi::api::core::v1::Node;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Nodes per second (`--node-eviction-rate`): one in 10 s.
const NORMAL_RATE: f64 = 0.1;
/// `--secondary-node-eviction-rate`: one in 100 s.
const SECONDARY_RATE: f64 = 0.01;
/// `--large-cluster-size-threshold`.
const LARGE: usize = 50;
/// `--unhealthy-zone-threshold`: unready part of a zone that makes it partly disrupted, beyond [`FEW`] unready nodes.
const UNHEALTHY: f64 = 0.55;
const FEW: usize = 2;
/// Label of nodes that do not count.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";
/// Region and zone of a node, and the labels they had before.
const LABELS: [[&str; 2]; 2] = [
    ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"],
    ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"],
];

/// Region and zone in one.
pub fn zone_of(node: &Node) -> String {
    let label = |names: &[&str; 2]| {
        let labels = node.metadata.labels.as_ref();
        names.iter().find_map(|name| labels.and_then(|l| l.get(*name))).map_or("", String::as_str)
    };
    format!("{}:{}", label(&LABELS[0]), label(&LABELS[1]))
}

/// Ready and unready nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Count {
    ready: usize,
    unready: usize,
}

impl Count {
    fn is_fully_disrupted(self) -> bool {
        self.ready == 0 && self.unready > 0
    }

    fn rate(self) -> f64 {
        let all = self.ready + self.unready;
        let partly = self.unready > FEW && self.unready as f64 / all as f64 >= UNHEALTHY;
        match () {
            () if self.is_fully_disrupted() || !partly => NORMAL_RATE,
            () if all > LARGE => SECONDARY_RATE,
            () => 0.0,
        }
    }
}

/// The state of all zones at a moment.
pub struct Health {
    zones: HashMap<String, Count>,
}

impl Health {
    pub fn of<'a>(nodes: impl Iterator<Item = &'a Node>) -> Self {
        let mut zones: HashMap<String, Count> = HashMap::new();
        for node in nodes.filter(|n| n.metadata.labels.as_ref().is_none_or(|l| !l.contains_key(EXCLUDED))) {
            let count = zones.entry(zone_of(node)).or_default();
            match ready_status(node) {
                "True" => count.ready += 1,
                _ => count.unready += 1,
            }
        }
        Health { zones }
    }

    /// Nothing is ready anywhere: the fault is more likely here.
    pub fn is_cut_off(&self) -> bool {
        self.zones.values().all(|count| count.is_fully_disrupted())
    }

    /// Evictions per second in a zone.
    fn rate(&self, zone: &str) -> f64 {
        if self.is_cut_off() { 0.0 } else { self.zones.get(zone).copied().unwrap_or_default().rate() }
    }
}

/// One eviction at most is saved up.
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// What is left of every zone's evictions. Bounded by the number of zones.
#[derive(Default)]
pub struct Limits {
    buckets: HashMap<String, Bucket>,
}

impl Limits {
    /// Take one eviction. Err: how long until there may be one; None: not as long as the zone is as it is.
    pub fn take(&mut self, zone: &str, health: &Health, now: Instant) -> Result<(), Option<Duration>> {
        let rate = health.rate(zone);
        self.buckets.retain(|name, _| health.zones.contains_key(name) || name == zone);
        let bucket = self.buckets.entry(zone.to_owned()).or_insert(Bucket { tokens: 1.0, at: now });
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * rate).min(1.0);
        bucket.at = now;
        if rate == 0.0 {
            return Err(None);
        }
        // What floating point leaves of a whole one is a whole one.
        if bucket.tokens < 0.999 {
            return Err(Some(Duration::from_secs_f64((1.0 - bucket.tokens) / rate)));
        }
        bucket.tokens = 0.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn nodes(zone: &str, ready: usize, unready: usize) -> Vec<Node> {
        let node = |status: &str| {
            json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}},
                "status": {"conditions": [{"type": "Ready", "status": status}]}})
        };
        let all = std::iter::repeat_n("True", ready).chain(std::iter::repeat_n("Unknown", unready));
        all.map(|status| serde_json::from_value(node(status)).unwrap()).collect()
    }

    #[test]
    fn rates_follow_the_zones_health() {
        // Ready and unready nodes of zone a and of zone b; the rates.
        for (a, b, rates) in [
            ((1, 1), (0, 0), [0.1, 0.1]),
            ((0, 1), (0, 0), [0.0, 0.0]),
            ((0, 3), (1, 0), [0.1, 0.1]),
            ((0, 3), (0, 1), [0.0, 0.0]),
            ((2, 3), (1, 0), [0.0, 0.1]),
            ((3, 3), (1, 0), [0.1, 0.1]),
            ((1, 2), (1, 0), [0.1, 0.1]),
            ((20, 31), (1, 0), [0.01, 0.1]),
            ((20, 30), (1, 0), [0.0, 0.1]),
        ] {
            let all = [nodes("a", a.0, a.1), nodes("b", b.0, b.1)].concat();
            let health = Health::of(all.iter());
            assert_eq!([":a", ":b"].map(|zone| health.rate(zone)), rates, "{a:?} {b:?}");
        }
    }

    #[test]
    fn excluded_nodes_do_not_count() {
        let mut all = nodes("a", 1, 1);
        all[0].metadata.labels.as_mut().unwrap().insert(EXCLUDED.to_owned(), String::new());
        assert!(Health::of(all.iter()).is_cut_off());
    }

    #[test]
    fn one_node_in_ten_seconds() {
        let (all, start) = (nodes("a", 9, 3), Instant::now());
        let (health, mut limits) = (Health::of(all.iter()), Limits::default());
        assert_eq!(limits.take(":a", &health, start), Ok(()));
        let second = Duration::from_secs(1);
        let wait = limits.take(":a", &health, start + second).unwrap_err().unwrap();
        assert!(wait.abs_diff(9 * second) < second / 1000, "{wait:?}");
        assert_eq!(limits.take(":a", &health, start + 10 * second), Ok(()));
        // Nothing is saved up beyond one.
        assert_eq!(limits.take(":a", &health, start + 1000 * second), Ok(()));
        assert!(limits.take(":a", &health, start + 1000 * second).is_err());
        // A zone that fails for the most part is left alone.
        let most = nodes("a", 1, 9);
        assert_eq!(limits.take(":a", &Health::of(most.iter()), start + 2000 * second), Err(None));
    }
}
