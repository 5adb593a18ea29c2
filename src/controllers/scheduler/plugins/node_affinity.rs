//! NodeAffinity: `nodeSelector` and node affinity, required and preferred.

use super::affinity::{any_term_matches, term_matches};
use super::{Event, Filter, Plugin, Refusal, Scale, Score};
use crate::controllers::scheduler::cluster::{Cluster, NodeInfo, PodInfo};

pub struct NodeAffinity;

/// May the pod run there, by its nodeSelector and required affinity?
pub fn allows(pod: &PodInfo, node: &NodeInfo) -> bool {
    let Some(spec) = pod.spec() else { return true };
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| node.label(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|r| any_term_matches(&r.node_selector_terms, node))
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Filter<'a>> {
        let spec = pod.spec()?;
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        if spec.node_selector.is_none() && affinity.is_none() {
            return None;
        }
        Some(Box::new(move |node| {
            let refusal = || Refusal::never("node(s) didn't match Pod's node affinity/selector");
            if allows(pod, node) { Ok(()) } else { Err(refusal()) }
        }))
    }

    fn score<'a>(&self, pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Score<'a>> {
        let affinity = pod.spec()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.as_deref()?;
        let points = Box::new(move |node: &NodeInfo| {
            let met = preferred.iter().filter(|p| term_matches(&p.preference, node));
            met.map(|p| i64::from(p.weight)).sum()
        });
        Some(Score { points, scale: Scale::Highest })
    }

    fn weight(&self) -> i64 {
        2
    }

    fn helped_by(&self, event: Event) -> bool {
        matches!(event, Event::NodeAdded | Event::NodeChanged)
    }
}
