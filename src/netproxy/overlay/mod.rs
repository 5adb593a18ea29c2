//! The pod network between nodes: how packets for another node's pods get there.
//!
//! | module | what it is |
//! |---|---|
//! | here | the choice of a backend, and [`plan`]: nodes → what the kernel must have |
//! | [`peers`] | Node objects → what a plan must know of them |
//! | [`vxlan`], [`host_gw`], [`wireguard`] | one backend each, pure |
//! | [`kernel`] | makes the kernel have it: the least change |
//! | [`keeper`] | follows nodes, heals what others break |
//!
//! On a node nothing but links, routes, neighbours and forwarding entries tells where pods are. All devices have names of
//! ours, and all routes a protocol number of ours, so that what an earlier start or another backend left is found.

mod host_gw;
pub mod keeper;
mod kernel;
mod peers;
#[cfg(test)]
mod plan_tests;
mod vxlan;
mod wireguard;

pub use kernel::remove;
pub use peers::pod_cidrs;
pub use wireguard::probe as probe_wireguard;

use super::link::route::Way;
use super::link::{Mac, Vxlan};
use super::net::{Cidr, Family};
use peers::Peer;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// How pods of different nodes reach each other (`--overlay`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// In UDP datagrams (RFC 7348): needs nothing but that nodes reach each other.
    #[default]
    Vxlan,
    /// By plain routes: for nodes on one link.
    HostGw,
    /// Encrypted.
    #[serde(rename = "wireguard")]
    WireGuard,
    /// Somebody else's CNI plugin connects pods; kedge does Services only.
    None,
}

/// Names on the command line.
const NAMES: &[(&str, Backend)] = &[
    ("vxlan", Backend::Vxlan),
    ("host-gw", Backend::HostGw),
    ("wireguard", Backend::WireGuard),
    ("none", Backend::None),
];

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such overlay; there are vxlan, host-gw, wireguard, none")]
pub struct NoSuchBackend;

impl std::str::FromStr for Backend {
    type Err = NoSuchBackend;

    fn from_str(text: &str) -> Result<Self, NoSuchBackend> {
        // k3s' name of the same.
        let text = if text == "wireguard-native" { "wireguard" } else { text };
        NAMES.iter().find(|(name, _)| *name == text).map(|(_, backend)| *backend).ok_or(NoSuchBackend)
    }
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = NAMES.iter().find(|(_, backend)| backend == self).map(|(name, _)| *name);
        f.write_str(name.unwrap_or_default())
    }
}

impl Backend {
    /// The MTU of pods, from that of the link with the node's address. Pods get it although the node may be alone still:
    /// others may come while they run.
    pub fn pod_mtu(self, link_mtu: u32, node: IpAddr) -> u32 {
        let overhead = match self {
            Backend::Vxlan => vxlan::overhead(node),
            Backend::WireGuard => wireguard::OVERHEAD,
            Backend::HostGw | Backend::None => 0,
        };
        link_mtu.saturating_sub(overhead).max(MIN_MTU)
    }
}

/// The least that IPv4 hosts must take (RFC 791); links with less do not carry pods' packets anyway.
const MIN_MTU: u32 = 576;
/// Of the route that answers for pods' addresses no node has, so that others' routes to the same network win.
const NOWHERE_METRIC: u32 = 0x6b65_0000;

/// What a plan must know of this node.
#[derive(Clone, Debug)]
pub struct Here {
    pub name: String,
    pub address: IpAddr,
    /// The node's own part of the pod networks.
    pub pods: Vec<Cidr>,
    /// All nodes' pods.
    pub cluster: Vec<Cidr>,
    /// Start of our interfaces' names.
    pub prefix: String,
    /// Of the interface with `address`.
    pub link_mtu: u32,
    /// How the kernel sends to each peer's address.
    pub ways: BTreeMap<IpAddr, Way>,
}

impl Here {
    /// The address that this node itself speaks to other nodes' pods from, so that answers come back through the overlay.
    fn overlay_addresses(&self) -> Vec<IpAddr> {
        self.pods.iter().filter_map(node_address).collect()
    }

    fn overlay_address(&self, family: Family) -> Option<IpAddr> {
        self.overlay_addresses().into_iter().find(|a| Family::of(*a) == family)
    }
}

/// A node's own address in its part of the pod network: the first, which no pod gets.
fn node_address(pods: &Cidr) -> Option<IpAddr> {
    pods.nth(1)
}

/// What the kernel must have; the rest of what bears our names or our routes' mark goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub devices: Vec<Device>,
    pub routes: Vec<Path>,
    /// What people must know.
    pub problems: BTreeSet<Problem>,
}

/// A device between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub name: String,
    pub mtu: u32,
    pub addresses: Vec<IpAddr>,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Vxlan {
        vxlan: Vxlan,
        mac: Mac,
        /// Other nodes' overlay addresses.
        neighbours: BTreeMap<IpAddr, Mac>,
        /// Where frames to these go.
        forwarding: BTreeMap<Mac, IpAddr>,
    },
    WireGuard {
        port: u16,
        peers: BTreeMap<wireguard::Key, wireguard::Peer>,
    },
}

/// The way to a network of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub to: Cidr,
    pub exit: Exit,
    pub via: Option<IpAddr>,
    pub source: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A device of ours.
    Device(String),
    /// A link of the node, by index.
    Link(u32),
    /// There is no such pod.
    Nowhere,
}

/// Why pods of a node are not reached as they should be; an Event about that node's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub node: String,
    pub reason: &'static str,
    pub message: String,
}

/// What the kernel must have for these peers.
pub fn plan(backend: Backend, here: &Here, peers: &[Peer]) -> Wanted {
    let mut wanted = match backend {
        Backend::Vxlan => vxlan::plan(here, peers),
        Backend::HostGw => host_gw::plan(here, peers),
        Backend::WireGuard => wireguard::plan(here, peers),
        Backend::None => return Wanted::default(),
    };
    let nowhere = |to: &Cidr| Path { to: *to, exit: Exit::Nowhere, via: None, source: None };
    wanted.routes.extend(here.cluster.iter().map(nowhere));
    wanted
}

/// The peer's pod networks that this node has a family for, and can have a tunnel to.
fn reachable<'a>(here: &Here, peer: &'a Peer) -> impl Iterator<Item = &'a Cidr> {
    let families: BTreeSet<Family> = here.pods.iter().map(Cidr::family).collect();
    peer.pods.iter().filter(move |cidr| families.contains(&cidr.family()))
}
