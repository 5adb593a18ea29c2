//! NodeResourcesBalancedAllocation: prefer nodes where CPU and memory would be used to similar parts.

use super::{Event, Plugin, Scale, Score};
use crate::controllers::scheduler::cluster::{Cluster, NodeInfo, PodInfo};

pub struct NodeResourcesBalancedAllocation;

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn score<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Score<'a>> {
        if pod.requests.milli_cpu == 0 && pod.requests.memory_bytes == 0 {
            return None;
        }
        let points = Box::new(|node: &NodeInfo| {
            let (has, used, more) = (&node.allocatable, &node.used, &pod.requests);
            let part = |used: i64, total: i64| if total <= 0 { 1.0 } else { (used as f64 / total as f64).min(1.0) };
            let cpu = part(used.milli_cpu + more.milli_cpu, has.milli_cpu);
            let memory = part(used.memory_bytes + more.memory_bytes, has.memory_bytes);
            // The standard deviation of two values is half their distance.
            ((1.0 - (cpu - memory).abs() / 2.0) * 100.0) as i64
        });
        Some(Score { points, scale: Scale::AsIs })
    }

    fn helped_by(&self, _event: Event) -> bool {
        false
    }
}
