//! Node objects → what the overlay must know of them.

use super::wireguard::Key;
use crate::netproxy::net::{Cidr, Family};
use k8s_openapi::api::core::v1::Node;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The WireGuard key of a node, on its Node object.
pub const PUBLIC_KEY: &str = "kedge.io/wireguard-public-key";

/// Another node with pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    pub name: String,
    pub address: IpAddr,
    pub pods: Vec<Cidr>,
    pub key: Option<Key>,
}

/// A node's own part of the pod networks.
pub fn pod_cidrs(node: &Node) -> Vec<Cidr> {
    let spec = node.spec.clone().unwrap_or_default();
    let named = spec.pod_cidrs.unwrap_or_else(|| spec.pod_cidr.into_iter().collect());
    named.iter().filter_map(|cidr| cidr.parse().ok()).collect()
}

/// None for this node itself, and for one that has no address of this family or no pod network yet.
pub fn peer(node: &Node, own_name: &str, family: Family) -> Option<Peer> {
    let name = node.metadata.name.clone().filter(|name| name != own_name)?;
    let addresses = node.status.as_ref()?.addresses.as_deref().unwrap_or_default();
    let internal = addresses.iter().filter(|a| a.type_ == "InternalIP").filter_map(|a| a.address.parse().ok());
    let address = internal.into_iter().find(|a: &IpAddr| Family::of(*a) == family)?;
    let key = node.metadata.annotations.as_ref().and_then(|a| a.get(PUBLIC_KEY)?.parse().ok());
    let pods = pod_cidrs(node);
    Some(Peer { name, address, pods, key }).filter(|peer| !peer.pods.is_empty())
}
