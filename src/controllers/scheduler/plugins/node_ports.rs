//! NodePorts: host ports are taken once per node.

use super::{Event, Filter, Plugin, Refusal};
use crate::controllers::scheduler::cluster::{Cluster, PodInfo};

pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Filter<'a>> {
        if pod.ports.is_empty() {
            return None;
        }
        Some(Box::new(|node| {
            let taken = pod.ports.iter().any(|wanted| node.ports.iter().any(|held| held.clashes(wanted)));
            let refusal = || Refusal::for_now("node(s) didn't have free ports for the requested pod ports");
            if taken { Err(refusal()) } else { Ok(()) }
        }))
    }

    fn helped_by(&self, event: Event) -> bool {
        matches!(event, Event::NodeAdded | Event::PodRemoved)
    }
}
