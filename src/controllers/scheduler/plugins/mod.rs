//! The scheduler's plugins: one file each, one line in [`ALL`].
//!
//! A plugin gives, for one pod and the cluster as it is, a filter over nodes or a score of nodes, or nothing when the
//! pod does not concern it. Pure: no clock, no client.

pub mod affinity;
mod balanced;
mod fit;
mod node_affinity;
mod node_name;
mod node_ports;
pub mod taints;
mod unschedulable;

use super::cluster::{Cluster, NodeInfo, PodInfo};
use std::borrow::Cow;

/// Why a node was refused, in upstream's words.
#[derive(Debug)]
pub struct Refusal {
    pub reasons: Vec<Cow<'static, str>>,
    /// Removing other pods could make the node fit.
    pub preemptable: bool,
}

impl Refusal {
    /// No change of other pods would help.
    pub fn never(reason: &'static str) -> Self {
        Refusal { reasons: vec![reason.into()], preemptable: false }
    }

    pub fn for_now(reason: &'static str) -> Self {
        Refusal { reasons: vec![reason.into()], preemptable: true }
    }
}

pub type Filter<'a> = Box<dyn Fn(&NodeInfo) -> Result<(), Refusal> + 'a>;

/// Raw points of nodes, and how they become 0..=100.
pub struct Score<'a> {
    pub points: Box<dyn Fn(&NodeInfo) -> i64 + 'a>,
    pub scale: Scale,
}

/// From raw points to 0..=100 over the nodes at hand.
#[derive(Clone, Copy, PartialEq)]
pub enum Scale {
    /// They are in the range already.
    AsIs,
    /// The highest is 100.
    Highest,
    /// Zero is 100, the highest is 0.
    Fewest,
}

/// What happened in the cluster; pods that wait are looked at again if it may help them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    NodeAdded,
    /// Labels, taints, allocatable or spec.unschedulable changed.
    NodeChanged,
    /// A pod left a node, or shrank.
    PodRemoved,
    /// A pod was bound, or its labels changed.
    PodPlaced,
}

pub trait Plugin: Sync {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// None: the pod may go anywhere as far as this plugin is concerned.
    fn filter<'a>(&self, _pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Filter<'a>> {
        None
    }

    /// None: all nodes are equal.
    fn score<'a>(&self, _pod: &'a PodInfo, _cluster: &'a Cluster) -> Option<Score<'a>> {
        None
    }

    /// How much the scaled score counts.
    fn weight(&self) -> i64 {
        1
    }

    /// Could `event` make a node fit that this plugin refused?
    fn helped_by(&self, event: Event) -> bool;
}

/// In the order of upstream's default profile; the first refusal of a node counts.
pub const ALL: &[&dyn Plugin] = &[
    &unschedulable::NodeUnschedulable,
    &node_name::NodeName,
    &taints::TaintToleration,
    &node_affinity::NodeAffinity,
    &node_ports::NodePorts,
    &fit::NodeResourcesFit,
    &balanced::NodeResourcesBalancedAllocation,
];
