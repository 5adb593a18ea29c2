//! NodeUnschedulable: cordoned nodes take no new pods.

use super::taints::tolerates;
use super::{Event, Filter, Plugin, Refusal};
use crate::controllers::scheduler::cluster::{Cluster, PodInfo};
use k8s_openapi::api::core::v1::Taint;

pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Filter<'a>> {
        let taint =
            Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Default::default() };
        if tolerates(pod, &taint) {
            return None;
        }
        Some(Box::new(|node| {
            let cordoned = node.node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true);
            if cordoned { Err(Refusal::never("node(s) were unschedulable")) } else { Ok(()) }
        }))
    }

    fn helped_by(&self, event: Event) -> bool {
        matches!(event, Event::NodeAdded | Event::NodeChanged)
    }
}
