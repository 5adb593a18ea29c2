//! How many pods to make, which to delete, what to count: pure.

use super::Set;
use crate::controllers::pods;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Default)]
pub struct Plan {
    pub create: usize,
    pub delete: Vec<Arc<Pod>>,
}

/// `crowds`: related active pods per node.
pub fn plan(wanted: usize, mine: &[Arc<Pod>], crowds: &BTreeMap<String, usize>, now: Timestamp) -> Plan {
    let active: Vec<_> = mine.iter().filter(|pod| pods::is_active(pod)).collect();
    let Some(surplus) = active.len().checked_sub(wanted) else {
        return Plan { create: wanted - active.len(), delete: Vec::new() };
    };
    let crowd = |pod: &Pod| crowds.get(pods::node_name(pod).unwrap_or("")).copied().unwrap_or(0);
    let mut ranked: Vec<_> = active.into_iter().map(|p| (pods::deletion_rank(p, crowd(p), now), p)).collect();
    ranked.sort_by(|a, b| a.0.cmp(&b.0));
    Plan { create: 0, delete: ranked.into_iter().take(surplus).map(|(_, pod)| pod.clone()).collect() }
}

/// The numbers of a set's status.
#[derive(Debug, Default, PartialEq)]
pub struct Counts {
    pub replicas: i32,
    pub fully_labeled: i32,
    pub ready: i32,
    pub available: i32,
    pub terminating: i32,
    /// When the next ready pod counts as available.
    pub next_available: Option<Duration>,
}

pub fn count<S: Set>(set: &S, mine: &[Arc<Pod>], now: Timestamp) -> Counts {
    let labels = set.template().and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.clone()).unwrap_or_default();
    let labeled = |pod: &Pod| {
        let held = pod.metadata.labels.as_ref();
        labels.iter().all(|(key, value)| held.and_then(|h| h.get(key)) == Some(value))
    };
    let active = || mine.iter().filter(|pod| pods::is_active(pod));
    let number = |test: &dyn Fn(&Pod) -> bool| active().filter(|pod| test(pod)).count() as i32;
    let waits = active().filter_map(|pod| pods::available_in(pod, set.min_ready(), now));
    Counts {
        replicas: number(&|_| true),
        fully_labeled: number(&labeled),
        ready: number(&pods::is_ready),
        available: number(&|pod| pods::is_available(pod, set.min_ready(), now)),
        terminating: mine.iter().filter(|p| pods::is_terminating(p) && !pods::is_finished(p)).count() as i32,
        next_available: waits.filter(|wait| !wait.is_zero()).min(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use serde_json::{Value, json};

    fn pod(name: &str, edit: impl FnOnce(&mut Value)) -> Arc<Pod> {
        let mut value = json!({"metadata": {"name": name, "uid": name, "labels": {"app": "web"}},
            "spec": {"nodeName": "n", "containers": []},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        edit(&mut value);
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:10Z".parse().unwrap()
    }

    #[test]
    fn finished_and_terminating_pods_are_replaced() {
        let mine = [
            pod("a", |_| ()),
            pod("failed", |p| p["status"]["phase"] = "Failed".into()),
            pod("leaving", |p| p["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:05Z".into()),
        ];
        let cases = [(0, 0, vec!["a"]), (1, 0, vec![]), (3, 2, vec![])];
        for (wanted, create, delete) in cases {
            let plan = plan(wanted, &mine, &BTreeMap::new(), now());
            let names: Vec<_> = plan.delete.iter().map(|p| p.metadata.name.as_deref().unwrap()).collect();
            assert_eq!((plan.create, names), (create, delete), "{wanted}");
        }
    }

    #[test]
    fn crowded_nodes_lose_pods_first() {
        let on = |name: &str, node: &str| pod(name, |p| p["spec"]["nodeName"] = node.into());
        let mine = [on("a", "one"), on("b", "two"), on("c", "two")];
        let crowds = BTreeMap::from([("one".to_owned(), 1), ("two".to_owned(), 2)]);
        let plan = plan(2, &mine, &crowds, now());
        assert_eq!(plan.delete[0].spec.as_ref().unwrap().node_name.as_deref(), Some("two"));
    }

    #[test]
    fn counts_follow_readiness_and_time() {
        let set: ReplicaSet = serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": {"replicas": 4,
            "minReadySeconds": 30, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web", "extra": "1"}}, "spec": {"containers": []}}}}))
        .unwrap();
        let mine = [
            pod("a", |p| p["metadata"]["labels"]["extra"] = "1".into()),
            pod("b", |p| p["status"]["conditions"][0]["status"] = "False".into()),
            pod("c", |p| p["status"]["conditions"][0]["lastTransitionTime"] = "2025-01-01T00:00:00Z".into()),
            pod("leaving", |p| p["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:05Z".into()),
        ];
        let expected = Counts {
            replicas: 3,
            fully_labeled: 1,
            ready: 2,
            available: 1,
            terminating: 1,
            next_available: Some(Duration::from_secs(20)),
        };
        assert_eq!(count(&set, &mine, now()), expected);
    }
}
