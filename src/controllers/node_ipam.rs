//! Node IPAM: each node gets its part of the pod network (`spec.podCIDR`).

use super::driver::{Controller, Requeue, Wakes};
use super::{Config, Context, apply};
use crate::cache::{Cache, Key};
use crate::events::{Recorder, Warning};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

struct NodeIpam {
    client: Client,
    recorder: Recorder,
    config: Arc<Config>,
    nodes: Cache<Node>,
    /// Given out, and not yet seen in the cache: node name → CIDRs.
    given: Mutex<HashMap<String, Vec<String>>>,
}

pub fn new(context: &Context) -> Box<dyn Controller> {
    Box::new(NodeIpam {
        client: context.client.clone(),
        recorder: context.recorder.clone(),
        config: context.config.clone(),
        nodes: context.caches.of(),
        given: Mutex::default(),
    })
}

#[async_trait]
impl Controller for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    fn wakes(&self, wakes: &mut Wakes) {
        wakes.primary(&self.nodes);
    }

    /// One node at a time: no part is given out twice.
    fn workers(&self) -> usize {
        1
    }

    async fn reconcile(&self, key: &Key) -> anyhow::Result<Requeue> {
        let Some(node) = self.nodes.at(key) else {
            self.given.lock().remove(&key.name);
            return Ok(Requeue::Done);
        };
        if !cidrs(&node).is_empty() {
            self.given.lock().remove(&key.name);
            return Ok(Requeue::Done);
        }
        if self.config.cluster_cidrs.is_empty() {
            return Ok(Requeue::Done);
        }
        let used: Vec<String> = {
            let given = self.given.lock();
            let held = given.iter().filter(|(name, _)| **name != key.name).flat_map(|(_, parts)| parts.clone());
            self.nodes.list().iter().flat_map(|n| cidrs(n)).chain(held).collect()
        };
        let mut parts = Vec::new();
        for cidr in &self.config.cluster_cidrs {
            let Some(network) = Network::parse(cidr) else { anyhow::bail!("cluster CIDR {cidr} is not valid") };
            let bits = if network.is_v4() { self.config.node_mask_v4 } else { self.config.node_mask_v6 };
            let Some(part) = free(&network, bits, &used) else {
                let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
                self.recorder.event(&node.object_ref(&()), Warning, "CIDRNotAvailable", message);
                anyhow::bail!("{cidr} has no free part for node {}", key.name);
            };
            parts.push(part);
        }
        self.given.lock().insert(key.name.clone(), parts.clone());
        let api: Api<Node> = Api::all(self.client.clone());
        apply::update(&api, node.as_ref(), |fresh| {
            let spec = fresh.spec.get_or_insert_default();
            spec.pod_cidr = parts.first().cloned();
            spec.pod_cidrs = Some(parts);
        })
        .await?;
        Ok(Requeue::Done)
    }
}

fn cidrs(node: &Node) -> Vec<String> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let listed = spec.pod_cidrs.clone().unwrap_or_default();
    if listed.is_empty() { spec.pod_cidr.clone().filter(|c| !c.is_empty()).into_iter().collect() } else { listed }
}

/// A network: address as a number, prefix length, number of address bits.
#[derive(Clone, Debug, PartialEq)]
struct Network {
    address: u128,
    prefix: u8,
    width: u8,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, width) = match address.parse().ok()? {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        let prefix = prefix.parse().ok().filter(|p| *p <= width)?;
        Some(Network { address: address & mask(prefix, width), prefix, width })
    }

    fn is_v4(&self) -> bool {
        self.width == 32
    }

    fn overlaps(&self, other: &Network) -> bool {
        let shorter = mask(self.prefix.min(other.prefix), self.width);
        self.width == other.width && self.address & shorter == other.address & shorter
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match u32::try_from(self.address) {
            Ok(v4) if self.is_v4() => write!(f, "{}/{}", Ipv4Addr::from(v4), self.prefix),
            _ => write!(f, "{}/{}", Ipv6Addr::from(self.address), self.prefix),
        }
    }
}

/// The bits of a network of this prefix length.
fn mask(prefix: u8, width: u8) -> u128 {
    let all = if width == 128 { u128::MAX } else { (1 << width) - 1 };
    let host = u32::from(width - prefix);
    if host >= 128 { 0 } else { all >> host << host }
}

/// The first part of `network` with `bits` of prefix that overlaps nothing used.
fn free(network: &Network, bits: u8, used: &[String]) -> Option<String> {
    if bits < network.prefix || bits > network.width {
        return None;
    }
    let used: Vec<Network> = used.iter().filter_map(|text| Network::parse(text)).collect();
    let step = 1u128.checked_shl(u32::from(network.width - bits))?;
    let same: HashSet<u128> =
        used.iter().filter(|u| u.prefix == bits && u.width == network.width).map(|u| u.address).collect();
    let odd: Vec<&Network> = used.iter().filter(|u| u.prefix != bits).collect();
    let count = 1u128.checked_shl(u32::from(bits - network.prefix))?;
    let part = |n: u128| Network { address: network.address + n * step, prefix: bits, width: network.width };
    let fits = |part: &Network| !same.contains(&part.address) && !odd.iter().any(|u| u.overlaps(part));
    // As many candidates as there are used parts, plus one, always contain a free one unless odd sizes are about.
    let limit = count.min(same.len() as u128 + odd.len() as u128 * 65_536 + 1);
    (0..limit).map(part).find(fits).map(|part| part.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_given_out_in_order_and_once() {
        let used = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let cases = [
            ("10.42.0.0/16", 24, vec![], Some("10.42.0.0/24")),
            ("10.42.0.0/16", 24, vec!["10.42.0.0/24", "10.42.1.0/24"], Some("10.42.2.0/24")),
            ("10.42.0.0/16", 24, vec!["10.42.1.0/24"], Some("10.42.0.0/24")),
            ("10.42.0.0/16", 24, vec!["10.42.0.0/23"], Some("10.42.2.0/24")),
            ("10.42.0.0/24", 24, vec!["10.42.0.0/24"], None),
            ("10.42.0.0/24", 25, vec!["10.42.0.0/25", "10.42.0.128/25"], None),
            ("10.42.0.0/24", 16, vec![], None),
            ("fd00:42::/56", 64, vec!["fd00:42::/64"], Some("fd00:42:0:1::/64")),
            ("10.42.7.9/16", 24, vec!["192.168.0.0/24"], Some("10.42.0.0/24")),
        ];
        for (network, bits, taken, expected) in cases {
            let found = free(&Network::parse(network).unwrap(), bits, &used(&taken));
            assert_eq!(found.as_deref(), expected, "{network} {bits} {taken:?}");
        }
        assert_eq!(Network::parse("10.42.0.0/33"), None);
        assert_eq!(Network::parse("nonsense"), None);
    }
}
