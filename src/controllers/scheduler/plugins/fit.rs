//! NodeResourcesFit: enough of everything is left; nodes with more left score higher (LeastAllocated).

use super::{Event, Filter, Plugin, Refusal, Scale, Score};
use crate::controllers::scheduler::cluster::{Cluster, NodeInfo, PodInfo};
use std::borrow::Cow;

pub struct NodeResourcesFit;

/// What the node lacks for the pod, in upstream's words.
pub fn lacks(pod: &PodInfo, node: &NodeInfo) -> Refusal {
    let mut refusal = Refusal { reasons: Vec::new(), preemptable: true };
    let (wants, has, used) = (&pod.requests, &node.allocatable, &node.used);
    let mut need = |name: &'static str, want: i64, total: i64, used: i64| {
        if want > 0 && want > total - used {
            refusal.reasons.push(name.into());
            refusal.preemptable &= want <= total;
        }
    };
    need("Too many pods", 1, has.pods, node.pods.len() as i64);
    need("Insufficient cpu", wants.milli_cpu, has.milli_cpu, used.milli_cpu);
    need("Insufficient memory", wants.memory_bytes, has.memory_bytes, used.memory_bytes);
    need("Insufficient ephemeral-storage", wants.ephemeral_bytes, has.ephemeral_bytes, used.ephemeral_bytes);
    for (name, want) in &wants.others {
        let of = |amounts: &std::collections::BTreeMap<String, i64>| amounts.get(name).copied().unwrap_or(0);
        if *want > 0 && *want > of(&has.others) - of(&used.others) {
            refusal.reasons.push(Cow::Owned(format!("Insufficient {name}")));
            refusal.preemptable &= *want <= of(&has.others);
        }
    }
    refusal
}

/// The part of `total` that is left, 0..=100.
fn left(total: i64, used: i64) -> i64 {
    if total <= 0 || used > total { 0 } else { (i128::from(total - used) * 100 / i128::from(total)) as i64 }
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Filter<'a>> {
        Some(Box::new(|node| {
            let refusal = lacks(pod, node);
            if refusal.reasons.is_empty() { Ok(()) } else { Err(refusal) }
        }))
    }

    fn score<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Score<'a>> {
        let points = Box::new(|node: &NodeInfo| {
            let (has, used) = (&node.allocatable, &node.used_scored);
            let cpu = left(has.milli_cpu, used.milli_cpu + pod.scored.milli_cpu);
            let memory = left(has.memory_bytes, used.memory_bytes + pod.scored.memory_bytes);
            (cpu + memory) / 2
        });
        Some(Score { points, scale: Scale::AsIs })
    }

    fn helped_by(&self, event: Event) -> bool {
        matches!(event, Event::NodeAdded | Event::NodeChanged | Event::PodRemoved)
    }
}
