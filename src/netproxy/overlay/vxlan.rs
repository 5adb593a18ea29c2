//! VXLAN as flannel and k3s lay it out: network 1, UDP port 8472, one device. A node's pods are reached through its
//! overlay address; who has that is told to the kernel once per node, so nothing is ever asked or learned.
//!
//! Hardware addresses follow from nodes' names: nobody has to publish them.

use super::{Device, Exit, Here, Kind, Path, Peer, Wanted, node_address, reachable};
use crate::netproxy::link::{Mac, Vxlan};
use crate::netproxy::net::Family;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The VXLAN network identifier and the port that flannel made the custom on Linux.
const ID: u32 = 1;
const PORT: u16 = 8472;

/// What is put around a packet: IP, UDP, VXLAN and Ethernet headers.
pub fn overhead(node: IpAddr) -> u32 {
    match Family::of(node) {
        Family::V4 => 50,
        Family::V6 => 70,
    }
}

pub fn device(prefix: &str) -> String {
    format!("{prefix}-vxlan")
}

/// Locally administered, unicast, the same on every node.
fn mac(node: &str) -> Mac {
    let digest = Sha256::digest(format!("vxlan {node}"));
    let mut mac = [0x0e; 6];
    mac[1..].copy_from_slice(&digest[..5]);
    mac
}

/// Everything through the device. No device while the node is alone.
pub fn plan(here: &Here, peers: &[Peer]) -> Wanted {
    let name = device(&here.prefix);
    let (mut neighbours, mut forwarding) = (BTreeMap::new(), BTreeMap::new());
    let mut routes = Vec::new();
    for peer in peers.iter().filter(|p| Family::of(p.address) == Family::of(here.address)) {
        for to in reachable(here, peer) {
            let Some(via) = node_address(to) else { continue };
            neighbours.insert(via, mac(&peer.name));
            forwarding.insert(mac(&peer.name), peer.address);
            let source = here.overlay_address(to.family());
            routes.push(Path { to: *to, exit: Exit::Device(name.clone()), via: Some(via), source });
        }
    }
    if routes.is_empty() {
        return Wanted::default();
    }
    let vxlan = Vxlan { id: ID, local: here.address, port: PORT };
    let mtu = super::Backend::Vxlan.pod_mtu(here.link_mtu, here.address);
    let kind = Kind::Vxlan { vxlan, mac: mac(&here.name), neighbours, forwarding };
    let device = Device { name, mtu, addresses: here.overlay_addresses(), kind };
    Wanted { devices: vec![device], routes, ..Wanted::default() }
}
