//! NodeName: a pod that names its node goes nowhere else.

use super::{Event, Filter, Plugin, Refusal};
use crate::controllers::pods;
use crate::controllers::scheduler::cluster::{Cluster, PodInfo};

pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Filter<'a>> {
        let wanted = pods::node_name(&pod.pod)?;
        Some(Box::new(move |node| {
            let refusal = || Refusal::never("node(s) didn't match the requested node name");
            if node.name() == wanted { Ok(()) } else { Err(refusal()) }
        }))
    }

    fn helped_by(&self, event: Event) -> bool {
        event == Event::NodeAdded
    }
}
